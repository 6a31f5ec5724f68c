package dev

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/capture"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/server"
)

// Options are the flags of innate dev.
type Options struct {
	Data       string // the folder, from [DataDir]
	Domain     string
	Port       int
	Reset      bool
	NoSample   bool
	WriteHosts bool
	// Capture has the agent answer at 169.254.169.254, by the kernel's word of
	// who asks; it takes root. CaptureCgroups are the control groups whose
	// programs are captured, besides those of "innate run"; none means all.
	Capture        bool
	CaptureCgroups []string
	// TypesFile has more resource types ([server.ReadTypes]); "" for none.
	TypesFile string
	// PublicNames has the proxy lead the public cloud's own names here, for the
	// programs that ask for it ("innate run --public-names").
	PublicNames bool
	// HostsFile is the hosts file; "/etc/hosts" if empty.
	HostsFile string
	// Out gets the banner.
	Out io.Writer
}

// The CA's certificate, alone and with the system's; and both with that of the
// public cloud's names too.
const (
	caFile           = "ca.pem"
	bundleFile       = "ca-bundle.pem"
	publicCAFile     = "public-ca.pem"
	publicBundleFile = "public-ca-bundle.pem"
)

// dev is one run.
type dev struct {
	opt  Options
	dir  string
	log  *slog.Logger
	ids  ids
	srv  *server.Server
	boot server.Bootstrapped
	ag   *agent.Agent
	in   Instance
	// types are those of the types file.
	types []server.ResourceType
}

// Run is "innate dev": it serves until ctx ends.
func Run(ctx context.Context, opt Options) error {
	d := &dev{opt: opt, dir: opt.Data}
	if opt.HostsFile == "" {
		d.opt.HostsFile = "/etc/hosts"
	}
	if !server.ValidDomain(opt.Domain) {
		return fmt.Errorf("--domain %q is not a domain name of two labels or more in lower case", opt.Domain)
	}
	if opt.Port < 0 || opt.Port > 65535 {
		return fmt.Errorf("--port %d is not between 0 (any free one) and 65535", opt.Port)
	}
	if opt.Capture && os.Geteuid() != 0 {
		return errors.New("--capture loads programs into the kernel, which takes root: start innate dev with sudo, or leave --capture out")
	}
	if len(opt.CaptureCgroups) > 0 && !opt.Capture {
		return errors.New("--capture-cgroup means nothing without --capture")
	}
	if opt.TypesFile != "" {
		types, err := server.ReadTypes(opt.TypesFile)
		if err != nil {
			return fmt.Errorf("--types: %w", err)
		}
		d.types = types
	}
	if opt.PublicNames && CloudName(opt.Domain) {
		return fmt.Errorf("--domain %q is under a domain of the public cloud, and --public-names would lead its names here twice; choose another", opt.Domain)
	}
	unlock, err := d.open()
	if err != nil {
		return err
	}
	defer unlock()
	out, err := openOwn(filepath.Join(d.dir, logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer out.Close()
	d.log = slog.New(slog.NewJSONHandler(out, nil))
	return d.serve(ctx)
}

// serve runs everything until ctx ends or a part fails.
func (d *dev) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := d.openServer(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	// The server outlives the agent: what the agent still has to report at
	// the end must find it.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	go func() { done <- d.srv.Serve(serving) }()
	end := func(err error) error {
		if d.ag != nil {
			d.ag.Close()
			err = errors.Join(err, d.endCapture())
		}
		stop()
		return errors.Join(err, <-done)
	}
	if err := d.fill(ctx); err != nil {
		return end(err)
	}
	proxyURL, closeProxy, err := d.startProxy(ctx)
	if err != nil {
		return end(err)
	}
	defer closeProxy()
	if err := d.announce(ctx, proxyURL); err != nil {
		return end(err)
	}
	defer func() { _ = os.Remove(filepath.Join(d.dir, instanceFile)) }() // a stale one is recognized
	if d.opt.WriteHosts {
		if err := writeHosts(d.opt.HostsFile, d.hostNames()); err != nil {
			return end(err)
		}
		defer func() {
			if err := writeHosts(d.opt.HostsFile, nil); err != nil {
				d.log.Error("cleaning the hosts file", "err", err)
			}
		}()
	}
	d.banner()
	select {
	case <-ctx.Done():
		return end(nil)
	case err := <-done:
		done <- nil
		return end(fmt.Errorf("the control plane stopped: %w", err))
	}
}

func (d *dev) openServer(ctx context.Context) error {
	key := filepath.Join(d.dir, keyFile)
	if err := d.rootKey(key); err != nil {
		return err
	}
	cfg := server.Config{
		Domain: d.opt.Domain, Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(d.opt.Port)), RootKeyFile: key, Replica: "dev", TokenLife: "1h",
		Database: server.Database{SQLite: filepath.Join(d.dir, databaseFile)}, TLS: server.TLS{LocalCA: true}, ResourceTypes: d.types,
		PublicNames: d.opt.PublicNames,
		Federation:  server.Federation{Reach: "loopback"}, // an issuer to try things with is on the same machine
	}
	var err error
	if d.srv, err = server.Open(ctx, cfg, d.log, time.Now); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return fmt.Errorf("port %d is in use; choose another with --port N, or --port 0 for any free one", d.opt.Port)
		}
		if _, net := errors.AsType[*net.OpError](err); net || ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w; if %s and %s are damaged or not of one installation, put them back from a copy, or start over, without the data, with --reset",
			err, cfg.Database.SQLite, key)
	}
	return nil
}

// rootKey makes the root key of a new installation; that of an old one is
// there and can be read, or it says so.
func (d *dev) rootKey(key string) error {
	_, err := os.Lstat(key)
	if err == nil {
		if _, err := seal.OpenFile(key); err != nil {
			return fmt.Errorf("%w; if it is damaged, put it back from a copy, or start over, without the data, with --reset", err)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for the root key: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(d.dir, databaseFile)); err == nil {
		return fmt.Errorf("%s is missing, and the database cannot be read without it; put it back, or start over, without the data, with --reset", key)
	}
	_, err = seal.CreateFile(key)
	return err
}

// fill makes what a first start makes and starts the agent.
func (d *dev) fill(ctx context.Context) error {
	if err := d.writeCA(); err != nil {
		return err
	}
	d.boot = server.Bootstrapped{Tenant: d.ids.Tenant, Subscription: d.ids.Subscription}
	q := server.Bootstrap{
		Tenant: d.ids.Tenant, Subscription: d.ids.Subscription, TenantName: "innate dev", Group: group, Location: location,
		Host: hostName, Owner: owner, Selectors: uidSelector(),
	}
	if err := d.srv.BootstrapIDs(q, &d.boot); err != nil {
		return err
	}
	if err := d.hostAgain(ctx); err != nil {
		return err
	}
	if err := d.once("bootstrap", func() error { _, err := d.srv.Bootstrap(ctx, q); return err }); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { // the signing key takes longest to make
		_, err := d.srv.Ring.Signer(gctx, d.ids.Tenant)
		return err
	})
	g.Go(func() error {
		if !d.opt.NoSample {
			if err := d.once("sample", func() error { return seed(gctx, d.srv, d.boot) }); err != nil {
				return err
			}
		}
		return d.once("placed", func() error { return place(gctx, d.srv, d.boot) })
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return d.startAgent(ctx)
}

// hostAgain has the host made and filled again where it was deleted: it is
// this machine, and without it nobody could come in to mend it.
func (d *dev) hostAgain(ctx context.Context) error {
	have, err := d.exists(ctx, d.boot.Host)
	if err != nil || have {
		return err
	}
	return errors.Join(d.forget("bootstrap"), d.forget("placed"))
}

// writeCA puts the CA's certificate, alone and with the system's, where
// programs are pointed at.
func (d *dev) writeCA() error {
	pem, roots := d.srv.CA.PEM(), systemRoots()
	files := map[string][]byte{caFile: pem, bundleFile: slices.Concat(roots, pem)}
	if d.srv.PublicCA != nil {
		// Files of their own: who trusts ca.pem, perhaps for the whole machine,
		// trusts nobody with the public cloud's names.
		public := slices.Concat(pem, d.srv.PublicCA.PEM())
		files[publicCAFile], files[publicBundleFile] = public, slices.Concat(roots, public)
	}
	for name, b := range files {
		if err := renameio.WriteFile(filepath.Join(d.dir, name), b, 0o644); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}

// systemRoots returns the system's CA bundle; where there is none, nothing
// outside was trusted before either.
func systemRoots() []byte {
	for _, f := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"} {
		if b, err := os.ReadFile(f); f != "" && err == nil {
			if len(b) > 0 && b[len(b)-1] != '\n' {
				b = append(b, '\n')
			}
			return b
		}
	}
	return nil
}

func (d *dev) startAgent(ctx context.Context) error {
	token, _, err := d.srv.Enrolment(ctx, d.ids.Tenant, d.boot.Host)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(d.srv.CA.Certificate())
	cfg := agent.Config{
		ControlPlane: d.srv.Names.Fleet(), CA: pool, StateDir: filepath.Join(d.dir, "agent"), EnrolToken: token,
		ControlSocket: d.socket(), Offline: agent.OfflineServe, Log: d.log, Now: time.Now,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, d.srv.Addr())
		},
	}
	for _, s := range samples {
		cfg.Doors = append(cfg.Doors, agent.DoorConfig{Name: s.name, Listen: "127.0.0.1:0"})
	}
	if d.opt.Capture {
		cfg.Capture = &agent.CaptureConfig{Config: capture.Config{Cgroups: d.opt.CaptureCgroups}, StartGroup: "/innate-" + d.ids.Tenant}
	}
	a, err := agent.New(cfg)
	if err != nil {
		return fmt.Errorf("configuring the agent: %w", err)
	}
	if err := a.Start(ctx); err != nil {
		return fmt.Errorf("starting the agent: %w", err)
	}
	d.ag = a
	return nil
}

// endCapture gives 169.254.169.254 back: on a laptop nothing is to stay behind.
// A killed instance leaves it refused, until the next one ends.
func (d *dev) endCapture() error {
	if !d.opt.Capture {
		return nil
	}
	return capture.Remove("")
}

// socket is the control socket's path: in the data folder, unless that is too
// long for a socket's address.
func (d *dev) socket() string {
	p := filepath.Join(d.dir, "agent.sock")
	if len(p) < 100 {
		return p
	}
	return filepath.Join(os.TempDir(), "innate-"+strconv.Itoa(os.Getuid())+"-"+d.ids.Tenant+".sock")
}

func (d *dev) startProxy(ctx context.Context) (string, func(), error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("opening the proxy: %w", err)
	}
	p := &proxy{domain: d.opt.Domain, listen: d.srv.Addr(), secret: rand.Text(), log: d.log}
	if d.opt.PublicNames {
		p.public = d.srv.Names.Serves
	}
	srv := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			d.log.Error("the proxy stopped", "err", err)
		}
	}()
	return p.url(ln.Addr().String()), func() { _ = srv.Close() }, nil
}

// announce writes dev.json.
func (d *dev) announce(ctx context.Context, proxyURL string) error {
	n := d.srv.Names
	d.in = Instance{
		TenantID: d.ids.Tenant, SubscriptionID: d.ids.Subscription, ResourceGroup: group, CAFile: filepath.Join(d.dir, caFile), PID: os.Getpid(), PublicNames: d.opt.PublicNames,
		Endpoints:     Endpoints{Login: n.Login(), Management: n.Management(), Graph: n.Graph(), Portal: n.Portal(), Metadata: "http://" + d.ag.AppAddr(), Proxy: proxyURL},
		Vaults:        map[string]string{},
		Resources:     map[string]Workload{},
		ControlSocket: d.socket(), Host: d.boot.Host.String(), Listen: d.srv.Addr(),
	}
	vaults, err := d.vaults(ctx)
	if err != nil {
		return err
	}
	for _, v := range vaults {
		d.in.Vaults[v] = n.Vault(v)
	}
	for _, s := range samples {
		id, err := d.boot.Group.Extension(s.typ, s.name)
		if err != nil {
			return err
		}
		have, err := d.exists(ctx, id)
		if err != nil {
			return err
		}
		if !have {
			continue
		}
		ev := evidence.Evidence{Door: "run", Grade: evidence.GradeSecret}
		for _, sel := range uidSelector() {
			ev.Selectors = append(ev.Selectors, evidence.Selector(sel))
		}
		header, _, err := d.ag.NewStart(id.String(), ev, "")
		if problem.Is(err, problem.CallerRefused) {
			// Deleted and made again, or its placement taken away: no reason
			// not to start. "innate run" with its resource ID places it again.
			d.log.Info("not of the sample any more", "resource", id.String(), "err", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("preparing %s: %w", s.name, err)
		}
		start := Start{Endpoint: "http://" + d.ag.AppAddr() + "/msi/token", Header: header}
		if at := d.ag.DoorAddr(s.name); at != "" {
			start.IMDS = "http://" + at
		}
		d.in.Resources[s.name] = Workload{ID: id.String(), Env: d.in.Env(d.dir, start, UserNoProxy())}
	}
	return d.in.write(d.dir)
}

// hostNames are what --write-hosts makes resolvable; a hosts file knows no
// wildcards, so it is the services and the vaults of this start.
func (d *dev) hostNames() []string {
	var out []string
	for _, l := range []string{"login", "management", "graph", "portal", "fleet", "vault"} {
		out = append(out, l+"."+d.opt.Domain)
	}
	for _, v := range d.in.Vaults {
		if u, err := url.Parse(v); err == nil {
			out = append(out, u.Hostname())
		}
	}
	return out
}
