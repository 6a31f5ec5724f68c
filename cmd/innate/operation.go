package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func operationCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "operation",
		Short: "Long-running operations, which go on after their request",
		Long: `Long-running operations, which go on after their request: a command waits for its own, unless it has --no-wait or is
interrupted. Then it says where the operation can be asked about: OPERATION is that address. Operations are forgotten a
day after they ended.`,
		Example: "  innate resource delete vm1 --no-wait\n  innate operation wait OPERATION",
	}
	c.AddCommand(operationLook(f, false), operationLook(f, true))
	return group(c)
}

// operationLook is show or wait.
func operationLook(f *flags, wait bool) *cobra.Command {
	m := managing{flags: f}
	use, short := "show OPERATION", "Say how an operation is getting on"
	if wait {
		use, short = "wait OPERATION", "Wait for the end of an operation"
	}
	return m.bind(&cobra.Command{
		Use: use, Short: short, Args: oneArg("OPERATION"),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := m.open(c)
			if err != nil {
				return err
			}
			defer a.release()
			at, err := a.ours(args[0])
			if err != nil {
				return err
			}
			s, err := a.look(c.Context(), at)
			if err == nil && wait {
				s, err = a.follow(c.Context(), at, s)
			}
			if err != nil {
				return a.later(c.Context(), at, err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), word(s.state))
			return err
		},
	}, false)
}

// waitFlag adds --no-wait to a command whose operation may take long.
func (m *managing) waitFlag(c *cobra.Command) {
	c.Flags().BoolVar(&m.noWait, "no-wait", false, "do not wait for the end: print where the operation can be asked about (innate operation)")
}

// errGoesOn ends a command, with success, that was not to wait.
var errGoesOn = errors.New("the operation goes on")

// ofAddress is what a path and query is made of. Quotes and what else a URL need
// not have as it is are left out: the address is printed to be pasted in a shell.
var ofAddress = regexp.MustCompile(`^/([A-Za-z0-9._~%?:@!$&*+,;=-][A-Za-z0-9._~%?:@!$&*+,;=/-]*)?$`)

// ours is the path and query of an address in the management API. Any other
// would be given our token.
func (a *acting) ours(link string) (string, error) {
	path := strings.TrimPrefix(link, a.in.Endpoints.Management)
	if !ofAddress.MatchString(path) {
		return "", fmt.Errorf("%q is no address in the management API at %s", link, a.in.Endpoints.Management)
	}
	return path, nil
}

// goesOn is where to ask about the operation that an answer is the beginning of:
// Azure-AsyncOperation is its status, Location its result, and without either a
// 202 leaves the resource itself to be asked. "" if the answer is the end.
func goesOn(resp *http.Response, asked string) string {
	accepted := resp.StatusCode == http.StatusAccepted
	switch at := resp.Header.Get("Azure-AsyncOperation"); {
	case at != "" || !accepted:
		return at
	}
	return cmp.Or(resp.Header.Get("Location"), asked)
}

// progress is what an operation says of itself.
type progress struct {
	state string
	over  bool
	// again is when it wants to be asked again.
	again time.Duration
}

// look asks about an operation. That it failed is an error, with the code and
// message of the API.
func (a *acting) look(ctx context.Context, at string) (progress, error) {
	resp, err := a.send(ctx, http.MethodGet, at, nil, nil)
	if err != nil {
		return progress{}, err
	}
	defer resp.Body.Close()
	p := progress{state: "InProgress", again: retryAfter(resp.Header)}
	if resp.StatusCode == http.StatusAccepted {
		return p, nil
	}
	var said struct {
		Status     string
		Error      *armError
		Properties struct{ ProvisioningState string }
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return p, fmt.Errorf("reading the operation's state: %w", err)
	}
	if len(b) > 0 && json.Unmarshal(b, &said) != nil {
		return p, fmt.Errorf("the operation's state is no JSON object: %.200q", b)
	}
	p.state = cmp.Or(said.Status, said.Properties.ProvisioningState, "Succeeded")
	switch p.state {
	case "Failed", "Canceled":
		if said.Error != nil {
			return p, said.Error
		}
		return p, &armError{p.state, "the operation has not succeeded, and the management API does not say why"}
	case "Succeeded":
		p.over = true
	}
	return p, nil
}

// retryAfter reads the header of that name, in seconds. Nobody is made to wait
// for more than a minute by it.
func retryAfter(h http.Header) time.Duration {
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n >= 0 {
		return min(time.Duration(n)*time.Second, time.Minute)
	}
	return 2 * time.Second
}

// busyMost is how many looks in a row may be refused because the API has too
// much to do.
const busyMost = 30

// busy reports whether a refusal is no end of an operation: the API has too much
// to do to say.
func busy(err error) bool {
	e, ok := errors.AsType[*armError](err)
	return ok && (e.Code == "TooManyRequests" || e.Code == "ServiceUnavailable")
}

// follow looks at an operation until its end.
func (a *acting) follow(ctx context.Context, at string, s progress) (progress, error) {
	for refused := 0; !s.over; {
		select {
		case <-time.After(max(s.again, 50*time.Millisecond)):
		case <-ctx.Done():
			return s, ctx.Err()
		}
		now, err := a.look(ctx, at)
		switch {
		case err == nil:
			s, refused = now, 0
		case busy(err) && refused < busyMost:
			refused++
		default:
			return now, err
		}
	}
	return s, nil
}

// interrupted is the exit code of a command that was interrupted, as shells have it.
const interrupted = 130

// later says how to look again where the looking failed, and not the operation.
func (a *acting) later(ctx context.Context, at string, err error) error {
	if _, ok := errors.AsType[*armError](err); ok && !busy(err) {
		return err
	}
	how := fmt.Sprintf("look at it with: innate operation show '%s%s'", a.in.Endpoints.Management, at)
	if ctx.Err() != nil {
		return failure{interrupted, fmt.Errorf("not waiting any more; the operation goes on: %s", how)}
	}
	return fmt.Errorf("%w; the operation goes on: %s", err, how)
}

// await waits for the operation that goes on at an address, if there is one:
// its request, of which resp is the answer, asked for a path.
func (a *acting) await(ctx context.Context, resp *http.Response, path string) (waited bool, err error) {
	at := goesOn(resp, path)
	if at == "" {
		return false, nil
	}
	if at, err = a.ours(at); err != nil {
		return true, err
	}
	if a.noWait {
		if _, err := fmt.Fprintln(a.stdout, a.in.Endpoints.Management+at); err != nil {
			return true, err
		}
		return true, errGoesOn
	}
	fmt.Fprintln(a.stderr, "innate: this takes a while; waiting for its end")
	s, err := a.follow(ctx, at, progress{again: retryAfter(resp.Header)})
	if err != nil {
		return true, a.later(ctx, at, err)
	}
	fmt.Fprintln(a.stderr, "innate: "+word(s.state))
	return true, nil
}
