package sts_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/token"
)

// claims reads a token without checking it.
func claims(t testing.TB, raw string) token.Claims {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var c token.Claims
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestClaims(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(start.Add(700 * time.Millisecond)) // times are whole seconds, none of them later than the truth
	iss := login + "/" + tenantA + "/"
	const vmID, userID = "/subscriptions/s1/resourcegroups/G1/providers/Microsoft.Compute/virtualMachines/vm1",
		"/subscriptions/s1/resourcegroups/G1/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1"
	base := token.Claims{
		IssuedAt: start.Unix(), NotBefore: start.Unix() - 300, Expires: start.Unix() + 3600, IDType: "app", Caller: "unix:uid:0", TenantID: tenantA,
	}
	for _, tt := range []struct {
		name, asked string
		sel         directory.Selector
		want        func(c *token.Claims)
	}{
		{"system, v1", "https://vault.azure.net/", directory.Selector{}, func(c *token.Claims) {
			c.Audience, c.Issuer, c.IDP, c.Version, c.AppID, c.AppIDACR = "https://vault.azure.net/", iss, iss, "1.0", w.system.Client, "2"
			c.ObjectID, c.Subject, c.IdentityResource = w.system.ID, w.system.ID, vmID
		}},
		{"user, v1", "api://Orders", directory.Selector{Client: w.user.Client}, func(c *token.Claims) {
			c.Audience, c.Issuer, c.IDP, c.Version, c.AppID, c.AppIDACR = "api://Orders", iss, iss, "1.0", w.user.Client, "2"
			c.ObjectID, c.Subject, c.IdentityResource, c.AskedBy = w.user.ID, w.user.ID, userID, vmID
		}},
		{"user, v2", "https://api.example.test/v2/", directory.Selector{Client: w.user.Client}, func(c *token.Claims) {
			c.Audience, c.Issuer, c.Version, c.AZP, c.AZPACR = "0d000000-0000-0000-0000-000000000002", iss+"v2.0", "2.0", w.user.Client, "2"
			c.ObjectID, c.Subject, c.IdentityResource, c.AskedBy = w.user.ID, w.user.ID, userID, vmID
		}},
	} {
		out, err := w.sts.ForWorkload(t.Context(), host, sts.Request{Audience: tt.asked, Workload: vm, Identity: tt.sel, Evidence: "unix:uid:0"})
		if err != nil {
			t.Fatal(err)
		}
		got, want := claims(t, out.Token), base
		tt.want(&want)
		want.ID = out.ID
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: claims (-want +got):\n%s", tt.name, diff)
		}
		if out.Resource != tt.asked || !out.Expires.Equal(start.Add(time.Hour)) || !out.NotBefore.Equal(start.Add(-5*time.Minute)) || len(out.ID) != 22 || out.Revision == 0 {
			t.Errorf("%s: issued %q until %s, revision %d", tt.name, out.Resource, out.Expires, out.Revision)
		}
	}
}

func TestLifeIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for life, want := range map[time.Duration]time.Duration{
		0: time.Hour, time.Second: 10 * time.Minute, -time.Hour: 10 * time.Minute, 10 * time.Minute: 10 * time.Minute,
		5 * time.Hour: 5 * time.Hour, 24 * time.Hour: 24 * time.Hour, 25 * time.Hour: 24 * time.Hour, 1 << 62: 24 * time.Hour,
	} {
		w.sts.Life = life
		c := claims(t, w.issue(t, "api://orders").Token)
		if got := time.Duration(c.Expires-c.IssuedAt) * time.Second; got != want || c.IssuedAt-c.NotBefore != 300 {
			t.Errorf("with Life %s a token lives %s, want %s", life, got, want)
		}
	}
}

// TestOnRecord: each token and each refusal leaves exactly one event, which is
// there when the answer is, and holds nothing secret.
func TestOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	off := directory.NewPrincipal(tenantA, directory.ManagedIdentity, resource.MustParse(vm.String()+"off"), true, start)
	off.Enabled = false
	w.put(t, off)
	base := audit.Event{Tenant: tenantA, At: start, Action: "Innate.Token/issue/action", Target: vm.String(), Outcome: audit.Refused,
		Principal: "host:h1", Name: "h1", Host: "h1", Via: "unix:uid:0", Request: "req-1"}
	for _, tt := range []struct {
		name string
		req  sts.Request
		kind problem.Kind
		want func(*audit.Event)
	}{
		{"issued", sts.Request{Workload: vm, Audience: "api://orders"}, "", func(e *audit.Event) {
			e.Outcome, e.Principal, e.Name, e.Audience = audit.Allowed, w.system.ID, "vm1", "api://orders"
		}},
		{"unknown identity", sts.Request{Workload: vm, Audience: "api://orders", Identity: directory.Selector{Client: w.other.Client}}, problem.IdentityNotFound, func(e *audit.Event) {
			e.Audience, e.Reason = "api://orders", "the requested identity is not assigned to vm1"
		}},
		{"disabled", sts.Request{Workload: off.Resource, Audience: "api://orders"}, problem.Denied, func(e *audit.Event) {
			e.Target, e.Principal, e.Name, e.Audience = off.Resource.String(), off.ID, "vm1off", "api://orders"
			e.Reason = "AADSTS7000112: the identity " + off.Client + " is disabled"
		}},
		{"unknown audience", sts.Request{Workload: vm, Audience: "api://nobody"}, problem.UnknownAudience, func(e *audit.Event) {
			e.Principal, e.Name, e.Audience = w.system.ID, "vm1", "api://nobody"
			e.Reason = "AADSTS500011: The resource principal named api://nobody was not found in the tenant " + tenantA +
				". Check the spelling, or register the API (Innate.Directory/applications) with this identifier URI."
		}},
		{"an endless audience", sts.Request{Workload: vm, Audience: strings.Repeat("x", 5000)}, problem.UnknownAudience, func(e *audit.Event) {
			e.Principal, e.Name, e.Audience = w.system.ID, "vm1", strings.Repeat("x", 200)+"..."
			e.Reason = "AADSTS500011: The resource is not an identifier: it is over 1024 bytes long, or has spaces, control characters or letters outside ASCII."
		}},
		{"no audience", sts.Request{Workload: vm}, problem.MissingParameter, func(e *audit.Event) {
			e.Principal, e.Name = w.system.ID, "vm1"
			e.Reason = "AADSTS900144: The request must contain the following parameter: 'resource' or 'scope'."
		}},
	} {
		before := len(w.events(t, tenantA))
		tt.req.Host, tt.req.Evidence = "h1", "unix:uid:0"
		out, err := w.sts.ForWorkload(t.Context(), host, tt.req)
		if tt.kind == "" && err != nil || tt.kind != "" && (!problem.Is(err, tt.kind) || out.Token != "") {
			t.Fatalf("%s: %v, want kind %q", tt.name, err, tt.kind)
		}
		evs := w.events(t, tenantA)[before:]
		want := base
		tt.want(&want)
		want.Token = out.ID
		if diff := cmp.Diff([]audit.Event{want}, evs); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", tt.name, diff)
		}
		text, err := json.Marshal(evs)
		if err != nil {
			t.Fatal(err)
		}
		if out.Token != "" && strings.Contains(string(text), strings.Split(out.Token, ".")[1]) {
			t.Errorf("%s: the event holds the token", tt.name)
		}
	}
}

// TestFormsAreOnRecord is the same for what clients post; all is refused today.
func TestFormsAreOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const secrets = "&client_secret=s3cr3t&client_assertion=eyJhbGciOiJub25lIn0.e30."
	for name, body := range map[string]string{
		"a secret": grant + "&client_id=c" + secrets + scope, "an assertion": grant + "&client_id=c&client_assertion=eyJhbGciOiJub25lIn0.e30." + scope,
		"no client": grant + secrets + scope, "no scope": grant + "&client_id=c" + secrets, "two scopes": grant + secrets + "&client_id=c&scope=a/.default+b/.default",
		"no grant": "client_id=c" + secrets + scope, "unknown grant": "grant_type=password&password=s3cr3t" + secrets + scope,
		"a parameter twice": grant + secrets + secrets + scope, "no form": "client_secret=s3cr3t%zz", "too long": strings.Repeat("s3cr3t", 20_000),
	} {
		before := len(w.events(t, tenantA))
		a := w.do(t, http.MethodPost, tokenV2, body)
		evs := w.events(t, tenantA)[before:]
		if len(evs) != 1 || evs[0].Outcome != audit.Refused || evs[0].Reason == "" || evs[0].Request != a.header.Get("X-Ms-Request-Id") || evs[0].Principal != "" {
			t.Errorf("%s: answer %d, events %+v", name, a.status, evs)
		}
		text, err := json.Marshal(evs)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{string(text), w.log.String(), a.text} {
			if strings.Contains(s, "s3cr3t") || strings.Contains(s, "eyJ") {
				t.Errorf("%s: a credential shows in %s", name, s)
			}
		}
	}
	// Of a tenant that does not exist there is no record to keep.
	w.do(t, http.MethodPost, "/"+nowhere+"/oauth2/v2.0/token", grant+scope)
	if evs := w.events(t, nowhere); len(evs) != 0 {
		t.Errorf("an invented tenant has events %+v", evs)
	}
}

// forgetful is the real store on a disk that is full.
type forgetful struct{ directory.Store }

func (forgetful) Record(context.Context, ...audit.Event) error { return errors.New("disk full") }

// TestNoRecordNoAnswer: neither a token nor a refusal leaves before its event is
// on disk.
func TestNoRecordNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sts.Directory.Store = forgetful{w.db}
	for _, audience := range []string{"api://orders", "api://nobody"} {
		out, err := w.sts.ForWorkload(t.Context(), host, sts.Request{Audience: audience, Workload: vm})
		if err == nil || problem.Of(err).Kind != problem.Internal || out.Token != "" {
			t.Errorf("%s without a record: token %v, %v", audience, out.Token != "", err)
		}
	}
	for _, body := range []string{grant + "&client_id=c&client_secret=s" + scope, "nonsense"} {
		w.do(t, http.MethodPost, tokenV2, body).problem(t, 500, 90020, "server_error")
	}
	if evs := w.events(t, tenantA); len(evs) != 0 {
		t.Errorf("on record are %+v", evs)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := make([]string, 32)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			out, err := w.sts.ForWorkload(t.Context(), host, sts.Request{Audience: "api://orders", Workload: vm})
			if err != nil {
				t.Error(err)
			}
			ids[i] = out.ID
		})
	}
	wg.Wait()
	recorded := map[string]int{}
	for _, ev := range w.events(t, tenantA) {
		recorded[ev.Token]++
	}
	for _, id := range ids {
		if recorded[id] != 1 {
			t.Errorf("token %q is on record %d times", id, recorded[id])
		}
	}
}

// TestTokenAnswers holds both shapes of the success: version 1 has all its
// numbers as text.
func TestTokenAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := sts.Issued{Token: "TOKEN", Resource: "https://vault.azure.net/", NotBefore: start.Add(-5 * time.Minute), Expires: start.Add(time.Hour)}
	w.set(start.Add(300 * time.Millisecond))
	for v1, want := range map[bool]string{
		false: `{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"TOKEN"}`,
		true: `{"token_type":"Bearer","expires_in":"3599","ext_expires_in":"3599","expires_on":"1790003600","not_before":"1789999700",` +
			`"resource":"https://vault.azure.net/","access_token":"TOKEN"}`,
	} {
		rec := httptest.NewRecorder()
		if err := sts.WriteToken(w.sts, rec, out, v1); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, rec.Body.String()); diff != "" || rec.Code != 200 {
			t.Errorf("v1 %v: %d (-want +got):\n%s", v1, rec.Code, diff)
		}
		if h := rec.Header(); h.Get("Cache-Control") != "no-store, no-cache" || h.Get("Pragma") != "no-cache" {
			t.Errorf("v1 %v: headers %v", v1, h)
		}
	}
}
