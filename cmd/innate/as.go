package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/client"
	"github.com/innate-id/innate/internal/dev"
)

// acting is this command acting as a workload.
type acting struct {
	id *client.Identity
	// http calls the installation's APIs.
	http *http.Client
	// in is the running instance, if there is one.
	in      *dev.Instance
	release func()
	// noWait is the flag --no-wait of the command, whose the writers are.
	stdout, stderr io.Writer
	noWait         bool
}

// actAs makes this command act as name. Within a workload ("innate run", or a
// machine with an endpoint of its own) and without a name it acts as that
// workload; else as fallback.
func actAs(ctx context.Context, f *flags, name, fallback, clientID string) (*acting, error) {
	a := &acting{id: &client.Identity{ClientID: clientID}, http: http.DefaultClient, release: func() {}, stdout: os.Stdout, stderr: os.Stderr}
	in, off := a.find(f)
	if in != nil && off != nil {
		return nil, off // an instance that cannot be used is not one that is not there
	}
	within := os.Getenv("IDENTITY_ENDPOINT") != "" || os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST") != "" || os.Getenv(workloadVariable) != ""
	if name == "" && within {
		if in == nil {
			a.in = elsewhere()
		}
		return a, nil
	}
	if name == "" {
		name = fallback
	}
	if off != nil {
		return nil, off
	}
	w, err := startWorkload(ctx, f, "", name, true)
	if err != nil {
		return nil, err
	}
	a.id.Endpoint, a.id.Header, a.release = w.start.Endpoint, w.start.Header, w.release
	return a, nil
}

// installation is the domain, with its port, of the installation that the
// variable says that SDKs read. The public cloud is none: that is where the
// variable leads on machines of its customers, and it must not get our tokens.
func installation() (domain string, ok bool) {
	u, err := url.Parse(os.Getenv("AZURE_AUTHORITY_HOST"))
	if err != nil || u.Scheme != "https" || dev.CloudName(strings.ToLower(u.Hostname())) {
		return "", false
	}
	return strings.CutPrefix(u.Host, "login.")
}

// elsewhere is an installation that is not this laptop's, as the variables say
// that the SDKs read too; nil where they say nothing. It has no sample: what is
// not in its first group is named by its resource ID.
func elsewhere() *dev.Instance {
	domain, ok := installation()
	sub := os.Getenv("AZURE_SUBSCRIPTION_ID")
	if !ok || sub == "" {
		return nil
	}
	group := cmp.Or(os.Getenv("INNATE_RESOURCE_GROUP"), "innate")
	machine, err := os.Hostname()
	if err != nil {
		machine = "localhost" // whoever means this machine then says which host it is
	}
	machine, _, _ = strings.Cut(machine, ".")
	return &dev.Instance{
		SubscriptionID: sub, ResourceGroup: group, Host: "/subscriptions/" + sub + "/resourceGroups/" + group + "/providers/Innate.Fleet/hosts/" + machine,
		Endpoints: dev.Endpoints{Login: "https://login." + domain, Management: "https://management." + domain},
	}
}

// find finds the running instance and calls its APIs from then on. Without one
// it returns nil and where it looked.
func (a *acting) find(f *flags) (*dev.Instance, error) {
	dir, err := f.dir()
	if err != nil {
		return nil, err // no home, as services have none: no instance either
	}
	in, err := dev.ReadInstance(dir)
	if errors.Is(err, dev.ErrNotRunning) {
		return nil, err
	}
	if err == nil {
		a.in = &in
		a.http, err = instanceClient(in)
	}
	return &in, err
}

// instanceClient trusts the instance's CA and finds its names without DNS.
func instanceClient(in dev.Instance) (*http.Client, error) {
	pem, err := os.ReadFile(in.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", in.CAFile)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, in.Listen)
		},
	}}, nil
}

// armError is the management API's refusal.
type armError struct{ Code, Message string }

func (e *armError) Error() string { return e.Code + ": " + e.Message }

// arm calls the management API and decodes its answer into out, if not nil.
func (a *acting) arm(ctx context.Context, method, path string, body, out any) (*http.Response, error) {
	return a.armIf(ctx, method, path, nil, body, out)
}

// maxAnswer is far more than a page of a list has, in bytes.
const maxAnswer = 256 << 20

// armIf is arm with more headers. It waits for the end of what goes on after
// the answer.
func (a *acting) armIf(ctx context.Context, method, path string, header http.Header, body, out any) (*http.Response, error) {
	if a.noWait && method != http.MethodGet {
		header = header.Clone()
		if header == nil {
			header = http.Header{}
		}
		header.Set("Prefer", "respond-async")
	}
	resp, err := a.send(ctx, method, path, header, body)
	if err != nil {
		return nil, err
	}
	if method != http.MethodGet {
		waited, err := a.await(ctx, resp, path)
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		if waited && out != nil { // the answer was not the resource yet
			resp.Body.Close()
			return a.arm(ctx, http.MethodGet, path, nil, out)
		}
	}
	if out == nil {
		return resp, nil
	}
	defer resp.Body.Close()
	return resp, json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out)
}

// send sends a request. A refusal is an [armError].
func (a *acting) send(ctx context.Context, method, path string, header http.Header, body any) (*http.Response, error) {
	tok, err := a.id.Token(ctx, managementAudience+"/")
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
		r = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(ctx, method, a.in.Endpoints.Management+path, r)
	if err != nil {
		return nil, fmt.Errorf("calling the management API: %w", err)
	}
	if header != nil {
		req.Header = header.Clone()
	}
	req.Header.Set("Authorization", "Bearer "+tok.Value)
	req.Header.Set("Content-Type", "application/json")
	// A redirect would take the token with it, in the clear too and to another
	// port; and a body to anywhere.
	hc := *a.http
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := hc.Do(req)
	if err != nil {
		return nil, fmt.Errorf("calling the management API: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e struct{ Error armError }
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e) != nil || e.Error.Code == "" {
		return nil, fmt.Errorf("the management API answered %s", resp.Status)
	}
	return nil, &e.Error
}

// placeHere places a resource that is not of the sample on this machine, as
// ops, so that this user can run programs as it; it says so, because it undoes
// that somebody took the placement away.
func placeHere(ctx context.Context, in dev.Instance, id string) error {
	ops, ok := in.Resources["ops"]
	if !ok {
		return fmt.Errorf("%s is not placed on this machine, and there is no ops to place it", id)
	}
	hc, err := instanceClient(in)
	if err != nil {
		return err
	}
	s, release, err := requestStart(ctx, in.ControlSocket, ops.ID, true)
	if err != nil {
		return err
	}
	defer release()
	a := &acting{id: &client.Identity{Endpoint: s.Endpoint, Header: s.Header}, http: hc, in: &in, stdout: os.Stdout, stderr: os.Stderr}
	name := "run-" + uuid.NewSHA1(uuid.NameSpaceURL, []byte(strings.ToLower(id))).String()
	resp, err := a.arm(ctx, http.MethodPut, in.Host+"/placements/"+name+"?api-version=2026-01-01", map[string]any{"properties": map[string]any{
		"door": "run", "resourceId": id, "selectors": []string{fmt.Sprintf("unix:uid:%d", os.Getuid())},
	}}, nil)
	if err != nil {
		return fmt.Errorf("placing %s on this machine: %w", id, err)
	}
	fmt.Fprintf(os.Stderr, "innate: %s was not placed on this machine; placed it, as ops (%s)\n", id, name)
	return resp.Body.Close()
}
