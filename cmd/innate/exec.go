package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/client"
	"github.com/innate-id/innate/internal/mask"
)

// exitNothingRan is the exit code of "innate exec" where the command was not
// run, as env, timeout and docker have it.
const exitNothingRan = 125

func execCommand(f *flags) *cobra.Command {
	x := &execution{flags: f}
	c := &cobra.Command{
		Use:   "exec [flags] -- COMMAND [ARG...]",
		Short: "Run a command with secrets, for as long as it runs",
		Long: `Run a command with secrets from a vault, for as long as it runs: a step of a build, a migration, a deployment.

The secrets are read with the identity of the machine: within "innate run", or where 169.254.169.254 answers, the
one that programs have there; else that of --as. All are read before the command starts; if one cannot be, nothing runs.

  --secret ENV=VAULT/NAME    in the command's environment, and in no other
  --file PATH=VAULT/NAME     in a file in memory, read-only, which is there while the command runs. PATH is a link to
                             it. As root the file is in a mount namespace of the command's own, where a daemon that
                             the command asks (docker) does not find it, and what the command mounts ends with it;
                             else in a folder of this user's in XDG_RUNTIME_DIR or /dev/shm.

VAULT/NAME may have a version, VAULT/NAME/VERSION, and may be a URL, https://x.vault.D/secrets/NAME.

Where the command prints a secret, *** is printed: also in base64, hexadecimal, URLs and JSON, and lines of it by
themselves; not where it is shorter than 4 bytes, or changed in another way. For that, output goes through pipes: the
command finds no terminal there. Output of what the command leaves running is passed on no more when it has ended.

Exit code, signals and standard input are the command's. 125 says that it was not run.`,
		Example: "  innate exec --secret DB_PASSWORD=demo/db-password -- ./migrate\n" +
			"  innate exec --as vm1 --file key.pem=demo/tls-key -- curl --key key.pem https://registry.example/",
		DisableFlagsInUseLine: true, // what follows is the command's
		Args: func(c *cobra.Command, args []string) error {
			if err := x.parse(args); err != nil {
				return failure{exitNothingRan, usage(c, "%w", err)}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return x.run(c.Context()) },
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return failure{exitNothingRan, usage(c, "%w", err)} })
	c.Flags().SetInterspersed(false)
	c.Flags().StringArrayVar(&x.secrets, "secret", nil, "ENV=VAULT/NAME: put the secret in this variable of the command (can be given again)")
	c.Flags().StringArrayVar(&x.paths, "file", nil, "PATH=VAULT/NAME: put the secret in this file, in memory (can be given again)")
	c.Flags().StringVar(&x.as, "as", "", "read them as this sample resource or resource ID (default: as the workload that this is)")
	c.Flags().StringVar(&x.clientID, "client-id", "", "client id of a user-assigned identity")
	c.Flags().StringVar(&x.socket, "agent-socket", "", "control socket of innate-agent: --as is a resource placed on this host, instead of innate dev's")
	c.Flags().StringVar(&x.domain, "vault-domain", "", "domain of the installation, D in https://VAULT.vault.D (default: that of innate dev, else of AZURE_AUTHORITY_HOST)")
	for name, complete := range map[string]cobra.CompletionFunc{"as": completeNames(f), "secret": completeVaults(f), "file": completeVaults(f)} {
		_ = c.RegisterFlagCompletionFunc(name, complete) // the flags exist: just above
	}
	return c
}

// completeVaults completes the vault in NAME=VAULT/.
func completeVaults(f *flags) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, given string) ([]string, cobra.ShellCompDirective) {
		name, _, ok := strings.Cut(given, "=")
		in, _, err := f.instance()
		if err != nil || !ok {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var out []string
		for _, v := range slices.Sorted(maps.Keys(in.Vaults)) {
			out = append(out, name+"="+v+"/")
		}
		return out, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
}

// execution is one "innate exec".
type execution struct {
	flags                        *flags
	secrets, paths               []string // as given
	as, clientID, socket, domain string

	command []string
	grants  []grant
}

// parse checks all of the command line before anything is asked of anybody.
func (x *execution) parse(args []string) error {
	if len(args) == 0 {
		return errors.New("a command was expected: innate exec --secret ENV=VAULT/NAME -- COMMAND [ARG...]")
	}
	if len(x.secrets)+len(x.paths) == 0 {
		return errors.New("no secret is asked for: give --secret ENV=VAULT/NAME or --file PATH=VAULT/NAME")
	}
	if x.socket != "" && x.as == "" {
		return errors.New("--agent-socket takes --as RESOURCE-ID, the resource to read the secrets as")
	}
	if strings.ContainsAny(x.domain, "/@ ") || strings.HasPrefix(x.domain, ".") {
		return fmt.Errorf("--vault-domain %q is not a domain, as in example.com or example.com:8443", x.domain)
	}
	x.command = args
	var err error
	x.grants, err = parseGrants(x.secrets, x.paths)
	return err
}

// run reads the secrets and runs the command with them.
func (x *execution) run(ctx context.Context) error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil { // the command's too: its core has its environment
		return failure{exitNothingRan, fmt.Errorf("switching core dumps off: %w", err)}
	}
	files := &memoryFiles{}
	if err := files.check(x.grants); err != nil {
		return failure{exitNothingRan, err}
	}
	values, err := x.read(ctx)
	if err == nil && ctx.Err() != nil {
		err = errors.New("interrupted; the command was not run")
	}
	if err != nil {
		return failure{exitNothingRan, err}
	}
	set := mask.New(slices.Collect(maps.Values(values))...)
	for p, v := range values {
		if v != "" && !mask.Maskable(v) {
			fmt.Fprintf(os.Stderr, "innate: warning: %s is shorter than %d bytes, so it is not masked in the command's output\n", p, mask.MinLen)
		}
	}
	env, err := x.environment(values)
	if err != nil {
		return failure{exitNothingRan, err}
	}
	err = x.runMasked(set, env, func() error { return files.make(x.grants, values) })
	left := files.remove()
	if left != nil && err != nil { // said here, because the command's exit code is what we end with
		fmt.Fprintln(os.Stderr, "innate:", left)
	}
	return firstOf(err, left)
}

// firstOf is the first error: the command's own exit code says more than ours.
func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// runMasked runs the command with its output through masks.
func (x *execution) runMasked(set *mask.Set, env []string, prepare func() error) error {
	// A reader of our output that goes away must not end us before the files
	// are gone. Notify, not Ignore: the command would be the heir of that.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	out, err := passOn(set, os.Stdout)
	if err != nil {
		return failure{exitNothingRan, err}
	}
	stderr := out // one pipe keeps the order of what goes to one place
	if !sameFile(os.Stdout, os.Stderr) {
		if stderr, err = passOn(set, os.Stderr); err != nil {
			out.started()
			return failure{exitNothingRan, errors.Join(err, out.end())}
		}
	}
	err = child{
		args: x.command, env: env, stdout: out.w, stderr: stderr.w, bound: true,
		prepare: func() error {
			if err := prepare(); err != nil {
				return failure{exitNothingRan, err}
			}
			return nil
		},
		started: func() { out.started(); stderr.started() },
	}.run()
	out.started()
	stderr.started()
	ended := out.end()
	if stderr != out {
		ended = errors.Join(ended, stderr.end())
	}
	return firstOf(err, ended)
}

// environment is the command's: ours, and the secrets.
func (x *execution) environment(values map[place]string) ([]string, error) {
	added := map[string]string{}
	for _, g := range x.grants {
		if g.env == "" {
			continue
		}
		v := values[g.place]
		if strings.Contains(v, "\x00") {
			return nil, fmt.Errorf("%s has a byte 0 in it, which no variable can hold; give it as a file: --file PATH=%s", g.place, g.place)
		}
		added[g.env] = v
	}
	var out []string
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		if _, ours := added[k]; !ours {
			out = append(out, kv)
		}
	}
	for k, v := range added {
		out = append(out, k+"="+v)
	}
	return out, nil
}

// read reads every secret, and says of each that cannot be why not.
func (x *execution) read(ctx context.Context) (map[place]string, error) {
	a, err := x.actor(ctx)
	if err != nil {
		return nil, err
	}
	defer a.release()
	if _, err := a.id.Token(ctx, vaultAudience); err != nil {
		return nil, x.noIdentity(err)
	}
	// From here on we hold secrets. Not before: an agent that is not root could
	// not see which program it is that asks.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("closing our memory to others: %w", err)
	}
	values := map[place]string{}
	var errs []error
	for _, g := range x.grants {
		if _, had := values[g.place]; had {
			continue
		}
		s, err := x.secret(ctx, a, g.place)
		if err != nil {
			errs = append(errs, fmt.Errorf("reading %s for %s: %w", g.place, g.name(), err))
		}
		values[g.place] = s
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("%w\nnothing was run", errors.Join(errs...))
	}
	return values, nil
}

const vaultAudience = "https://vault.azure.net"

// actor is who reads the secrets. Unlike other commands it is nobody by
// default: a step of a build must not act as the owner of everything because
// its machine has no identity.
func (x *execution) actor(ctx context.Context) (*acting, error) {
	if x.socket != "" {
		w, err := startWorkload(ctx, x.flags, x.socket, x.as, true)
		if err != nil {
			return nil, err
		}
		id := &client.Identity{ClientID: x.clientID, Endpoint: w.start.Endpoint, Header: w.start.Header}
		return &acting{id: id, http: http.DefaultClient, release: w.release}, nil
	}
	if x.as != "" {
		return actAs(ctx, x.flags, x.as, "", x.clientID)
	}
	a := &acting{id: &client.Identity{ClientID: x.clientID, HTTP: localEndpoint}, http: http.DefaultClient, release: func() {}}
	if in, off := a.find(x.flags); in != nil && off != nil {
		return nil, off
	}
	return a, nil
}

// localEndpoint gives up on 169.254.169.254 soon where nothing answers there.
var localEndpoint = &http.Client{
	Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// noIdentity adds what to do to an error of the local endpoint.
func (x *execution) noIdentity(err error) error {
	if _, refused := errors.AsType[*client.Error](err); refused || x.as != "" {
		return fmt.Errorf("%w; nothing was run", err)
	}
	return fmt.Errorf("this machine has no identity to read secrets with: %w; run this within \"innate run NAME -- ...\", or say whose to use with --as NAME; nothing was run", err)
}

// secret reads one secret.
func (x *execution) secret(ctx context.Context, a *acting, p place) (string, error) {
	url, err := x.vaultURL(a, p.vault)
	if err != nil {
		return "", err
	}
	v := &client.Vault{URL: url, Identity: a.id, HTTP: a.http, Audience: vaultAudience}
	var s client.Secret
	if p.version == "" {
		s, err = v.Get(ctx, p.name)
	} else {
		s, err = v.GetVersion(ctx, p.name, p.version)
	}
	if err == nil {
		return s.Value, nil
	}
	if e, ok := errors.AsType[*client.Error](err); ok && e.Code == "SecretNotFound" {
		return "", fmt.Errorf("%w; set it with \"innate secret set %s/%s\"", err, p.vault, p.name)
	} else if ok && e.Status == http.StatusForbidden {
		return "", fmt.Errorf("%w; give the identity the role Key Vault Secrets User on the vault", err)
	}
	return "", a.hint(err)
}

// vaultURL is where a vault is, by its name or URL.
func (x *execution) vaultURL(a *acting, vault string) (string, error) {
	login, known := installation()
	switch {
	case strings.HasPrefix(vault, "https://"):
		return vault, nil
	case x.domain != "":
		return "https://" + strings.ToLower(vault) + ".vault." + x.domain, nil
	case a.in != nil:
		v, err := a.vault(vault)
		if err != nil {
			return "", err
		}
		return v.URL, nil
	case known:
		return "https://" + strings.ToLower(vault) + ".vault." + login, nil
	}
	return "", fmt.Errorf("where the vault %q is is not known here: say --vault-domain D, or give the secret's URL, https://%s.vault.D/secrets/NAME", vault, vault)
}
