package vault_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// held is a write whose headers and half of whose body are sent.
type held struct {
	rest *io.PipeWriter
	done chan *http.Response
}

// hold sends half of a write and returns once its right has been asked for.
func (w *world) hold(t *testing.T, token, method, url, half string) held {
	t.Helper()
	asked := make(chan struct{})
	inner := w.vault.Authorize
	w.vault.Authorize = func(ctx context.Context, c access.Caller, op access.Operation) (access.Decision, error) {
		d, err := inner(ctx, c, op)
		if asked != nil {
			close(asked)
			asked = nil
		}
		return d, err
	}
	body, rest := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), method, url+"?api-version=7.4", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	h := held{rest: rest, done: make(chan *http.Response, 1)}
	began := asked
	go func() {
		res, err := w.http.Do(req)
		if err != nil {
			t.Errorf("%s %s: %v", method, url, err)
		}
		h.done <- res
	}()
	if _, err := rest.Write([]byte(half)); err != nil {
		t.Fatal(err)
	}
	<-began
	return h
}

// finish sends the rest and returns the answer's status and text.
func (h held) finish(t *testing.T, rest string) (int, string, http.Header) {
	t.Helper()
	_, _ = h.rest.Write([]byte(rest)) // the server may have answered already
	_ = h.rest.Close()
	res := <-h.done
	if res == nil {
		t.FailNow()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b), res.Header
}

// TestAWriteIsDecidedWhenItsBodyIsThere: a body may come a minute after its
// headers, and what was allowed then may not be any more.
func TestAWriteIsDecidedWhenItsBodyIsThere(t *testing.T) {
	const inherited = "Key Vault Secrets Officer at " + group // a right to whatever vault has the name
	takeRole := func(t *testing.T, w *world, _ string) {
		roles, err := w.db.RoleAssignments(t.Context(), tenantA, []string{resource.MustParse(group).Key()}, "", "", arm.Page{})
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, tenantA, func(tx arm.Tx) error {
			for _, ra := range roles {
				if err := tx.DeleteRoleAssignment(ra.ID.Key()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	revoke := func(_ *testing.T, w *world, token string) { w.revoke(token) }
	remake := func(t *testing.T, w *world, _ string) {
		id := resource.MustParse(demoID)
		w.write(t, tenantA, func(tx arm.Tx) error {
			r, err := tx.Resource(id.Key())
			if err != nil {
				return err
			}
			if err := tx.DeleteTree(id.Key()); err != nil {
				return err
			}
			r.UID = uuid.NewString()
			return tx.PutResource(r)
		})
	}
	for _, tt := range []struct {
		name             string
		meanwhile        func(t *testing.T, w *world, token string)
		status           int
		says             string
		outcome, because string
	}{
		{"the role was taken away", takeRole, 403, "ForbiddenByRbac", audit.Denied, "no role assignment allows it"},
		{"the identity was deleted", revoke, 401, "Unauthorized", audit.Refused, "revoked"},
		{"the vault was made anew", remake, 404, "VaultNotFound", audit.Refused, "vault_not_found"},
	} {
		for _, method := range []string{"PUT", "PATCH"} {
			t.Run(method+" after "+tt.name, func(t *testing.T) {
				w := newWorld(t)
				tok := w.as(t, tenantA, "alice", inherited)
				h := w.hold(t, tok, method, demoURL+"/secrets/db", `{"value":"pl`)
				tt.meanwhile(t, w, tok)
				rest := `ant"}`
				if method == "PATCH" {
					rest = `ant","tags":{}}`
				}
				status, text, header := h.finish(t, rest)
				if status != tt.status || !strings.Contains(text, tt.says) {
					t.Errorf("the rest of the body is answered %d %s, want %d %s", status, text, tt.status, tt.says)
				}
				if status == 401 && !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer authorization=") {
					t.Errorf("a 401 without a challenge: %v", header)
				}
				page, err := w.db.Secrets(t.Context(), tenantA, resource.MustParse(demoID).Key(), false, "", 0)
				if err != nil || len(page) != 0 {
					t.Errorf("it is stored: %+v, %v", page, err)
				}
				evs := w.events(t, tenantA)
				if len(evs) != 1 || evs[0].Outcome != tt.outcome || evs[0].Reason != tt.because {
					t.Errorf("on record: %+v, want one event, %s because %s", evs, tt.outcome, tt.because)
				}
			})
		}
	}
}

// TestALateBodyIsTaken: all that a slow client needs is to keep its right.
func TestALateBodyIsTaken(t *testing.T) {
	w := newWorld(t)
	tok := w.as(t, tenantA, "alice", officer)
	h := w.hold(t, tok, "PUT", demoURL+"/secrets/db", `{"value":"hun`)
	if status, text, _ := h.finish(t, `ter2"}`); status != 200 {
		t.Errorf("a late body is answered %d %s", status, text)
	}
	if evs := w.events(t, tenantA); len(evs) != 1 || evs[0].Outcome != audit.Allowed {
		t.Errorf("on record: %+v", evs)
	}
}
