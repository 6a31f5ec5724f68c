package arm_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/sts"
)

const remaining = "X-Ms-Ratelimit-Remaining-"

// newLimitedWorld has limits of so many reads and writes at once; time, which
// gives new ones, stands still until the test moves it.
func newLimitedWorld(t *testing.T, reads, writes int) *world {
	t.Helper()
	one := 1.0
	return newWorldAs(t, func(c *server.Config) {
		c.Limits = server.Limits{Reads: server.Rate{PerSecond: &one, Burst: &reads}, Writes: server.Rate{PerSecond: &one, Burst: &writes}}
	})
}

// left is what the headers of an answer say: which, and how many are left.
func (r reply) left() (which, n string) {
	for name, v := range r.header {
		if w, ok := strings.CutPrefix(name, remaining); ok {
			which, n = which+w, n+v[0]
		}
	}
	return which, n
}

func (r reply) leaves(t *testing.T, which, n string) {
	t.Helper()
	if w, m := r.left(); w != which || m != n {
		t.Errorf("an answer (%d) says %q left of %q, want %q of %q", r.status, m, w, n, which)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := newLimitedWorld(t, 4, 2)
	loop, other := w.as(tenantA, "loop", roleOwner+" "+sub), w.as(tenantA, "other", roleOwner+" "+sub)
	for _, n := range []string{"3", "2", "1", "0"} {
		loop.must(200, "GET", g1, "").leaves(t, "Subscription-Reads", n)
	}
	for range 20 {
		r := loop.refused(429, "TooManyRequests", "GET", g1, "")
		r.leaves(t, "Subscription-Reads", "0")
		if got := r.header.Get("Retry-After"); got != "1" || !strings.Contains(r.str("error", "message"), "after '1' seconds") || !strings.Contains(r.text, loop.oid) {
			t.Errorf("Retry-After: %q; %s", got, r.text)
		}
	}
	if r := loop.do("HEAD", vms+"/vm1", ""); r.status != 429 || r.text != "" || r.header.Get("Retry-After") != "1" {
		t.Errorf("HEAD = %d %v %s", r.status, r.header, r.text)
	}
	// Another's, and what is of another kind or of none of its subscriptions.
	other.must(200, "GET", g1, "").leaves(t, "Subscription-Reads", "3")
	loop.must(201, "PUT", vms+"/vm1", local).leaves(t, "Subscription-Writes", "1")
	loop.must(200, "DELETE", vms+"/vm1", "").leaves(t, "Subscription-Deletes", "1")
	loop.must(200, "GET", "/subscriptions", "").leaves(t, "Tenant-Reads", "3")
	loop.refused(403, "AuthorizationFailed", "PUT", mgs+"/a", `{}`).leaves(t, "Tenant-Writes", "1")
	loop.refused(404, "ResourceNotFound", "POST", vms+"/vm1/nothing", "").leaves(t, "Subscription-Writes", "0")

	w.advance(time.Second)
	loop.must(200, "GET", g1, "").leaves(t, "Subscription-Reads", "0")
	loop.refused(429, "TooManyRequests", "GET", g1, "")
	var on []audit.Event
	for _, ev := range w.events(tenantA) {
		if ev.Principal == loop.oid && strings.Contains(ev.Reason, "limit") {
			on = append(on, ev)
		}
	}
	if len(on) != 1 || on[0].Outcome != audit.Refused || on[0].Action != "Innate.Management/requests/read" || on[0].Target != g1 {
		t.Errorf("of 22 refusals there is on record: %+v", on)
	}
}

// TestEveryAnswerToAKnownCallerSaysWhatIsLeft: whatever comes of it.
func TestEveryAnswerToAKnownCallerSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.as(tenantA, "c")
	c.refused(403, "AuthorizationFailed", "GET", g1, "").leaves(t, "Subscription-Reads", "19999")
	c.refused(400, "MissingApiVersionParameter", "GET", g1+"?x=y", "").leaves(t, "Subscription-Reads", "19998")
	c.refused(400, "InvalidRequestContent", "GET", g1+"?api-version=%zz", "").leaves(t, "Subscription-Reads", "19997")
	c.refused(404, "InvalidResourceType", "GET", g1+"/providers/Nobody.Knows/it/x", "").leaves(t, "Subscription-Reads", "19996")
	c.refused(400, "InvalidResourceId", "GET", "/x", "").leaves(t, "Tenant-Reads", "19999")
	c.refused(400, "InvalidResourceId", "GET", g1+"/../g2", "").leaves(t, "Tenant-Reads", "19998") // no path
	c.refused(405, "MethodNotAllowed", "BREW", vms+"/vm1", "").leaves(t, "Subscription-Writes", "19999")
	c.must(200, "GET", "/SUBSCRIPTIONS", "").leaves(t, "Tenant-Reads", "19997")
	c.refused(403, "AuthorizationFailed", "GET", strings.ToUpper(sub), "").leaves(t, "Subscription-Reads", "19995")
	c.token = "x"
	c.must(401, "GET", g1, "").leaves(t, "", "")
	c.must(200, "GET", "/metadata/endpoints", "").leaves(t, "", "")
}

// TestStrangersUseUpNobodysLimit: a token that does not verify names a principal,
// and takes nothing from it.
func TestStrangersUseUpNobodysLimit(t *testing.T) {
	t.Parallel()
	w := newLimitedWorld(t, 2, 10)
	c := w.as(tenantA, "c", roleReader+" "+sub)
	forged := *c
	forged.token = c.token[:strings.LastIndexByte(c.token, '.')+1] + "AAAA"
	for range 5 {
		forged.must(401, "GET", g1, "").leaves(t, "", "")
	}
	c.must(200, "GET", g1, "").leaves(t, "Subscription-Reads", "1")
}

// TestInventedSubscriptionsAreNoWayAround: a subscription that is not there has
// no bucket; one of another tenant is not there.
func TestInventedSubscriptionsAreNoWayAround(t *testing.T) {
	t.Parallel()
	w := newLimitedWorld(t, 3, 10)
	c := w.as(tenantA, "c", roleReader+" "+sub)
	for _, n := range []string{"2", "1", "0"} {
		c.do("GET", "/subscriptions/"+uuid.NewString()+"/resourceGroups/g1", "").leaves(t, "Tenant-Reads", n)
	}
	c.refused(429, "TooManyRequests", "GET", "/subscriptions/"+uuid.NewString(), "").leaves(t, "Tenant-Reads", "0")
	c.refused(429, "TooManyRequests", "GET", "/subscriptions", "")
	c.must(200, "GET", g1, "").leaves(t, "Subscription-Reads", "2")
	// One that is made is known from its next request on.
	top := w.root()
	w.addSubscription(top)
	top.must(200, "GET", sub2, "").leaves(t, "Subscription-Reads", "2")
}

// TestLimitComesBeforeTheBodyAndTheRights: what is refused costs next to nothing.
func TestLimitComesBeforeTheBodyAndTheRights(t *testing.T) {
	t.Parallel()
	w := newLimitedWorld(t, 1, 1)
	nobody := w.as(tenantA, "nobody")
	nobody.refused(403, "AuthorizationFailed", "PUT", vms+"/vm1", local)
	nobody.refused(429, "TooManyRequests", "PUT", vms+"/vm1", `{"location":`)
	h := w.srv.ARM.Handler(slog.New(slog.DiscardHandler), func(ctx context.Context, r *http.Request) (access.Caller, error) {
		return w.srv.STS.Authenticate(ctx, r, sts.ARM, "")
	})
	req := httptest.NewRequestWithContext(t.Context(), "PUT", w.url(vms+"/vm1"), untouched{t})
	req.Header.Set("Authorization", "Bearer "+nobody.token)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	if rec.Code != 429 {
		t.Errorf("PUT = %d, want 429", rec.Code)
	}
}

// TestLogHasTheFirstRefusalOfARun: refusals are cheap, and lines are not.
func TestLogHasTheFirstRefusalOfARun(t *testing.T) {
	t.Parallel()
	w := newLimitedWorld(t, 2, 2)
	c := w.as(tenantA, "c", roleReader+" "+sub)
	var log strings.Builder
	h := w.srv.ARM.Handler(slog.New(slog.NewTextHandler(&log, nil)), func(context.Context, *http.Request) (access.Caller, error) {
		return access.Caller{Tenant: tenantA, Principal: c.oid}, nil
	})
	refused := 0
	for range 50 {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), "GET", w.url(g1), nil))
		if rec.Code == 429 {
			refused++
		}
	}
	if lines := strings.Count(log.String(), "kind=throttled"); refused != 48 || lines != 1 {
		t.Errorf("of %d refusals the log has %d, want 48 and the first:\n%s", refused, lines, log.String())
	}
}

// untouched is a body that nobody may read.
type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestWithoutALimitNothingIsSaid(t *testing.T) {
	t.Parallel()
	none, one := 0.0, 1
	w := newWorldAs(t, func(c *server.Config) {
		c.Limits = server.Limits{Reads: server.Rate{PerSecond: &none, Burst: &one}}
	})
	for range 3 {
		w.owner.must(200, "GET", g1, "").leaves(t, "", "")
	}
	w.owner.must(200, "PUT", g1, local).leaves(t, "Subscription-Writes", "19998")
}
