package bench

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
)

// BenchmarkLists is what a page of a list costs, the first, one in the middle and
// the last, and what it costs to create one more, in a tenant with a thousand and
// with a million user-assigned identities, 1,000 in each group. Pages are asked
// for at the management API over TLS, with a token; the median is reported. The
// identities are loaded beneath the API, a thousand in each write.
func BenchmarkLists(b *testing.B) {
	for _, name := range []string{"sqlite", "postgres"} {
		for _, n := range sizes(1_000_000, 1_000) {
			b.Run(fmt.Sprintf("%s/identities=%d", name, n), func(b *testing.B) {
				l := newLists(b, name, n)
				for _, page := range []struct{ what, url string }{
					{"first", l.page(0)}, {"middle", l.page(n / 2)}, {"last", l.page(n - 50)},
				} {
					b.Run(page.what, func(b *testing.B) {
						l.measure(b, func() int { return l.list(b, page.url) })
					})
				}
				b.Run("create", func(b *testing.B) {
					l.measure(b, func() int { return l.create(b) })
				})
			})
		}
	}
}

type lists struct {
	*estate
	sub   resource.ID
	token string
	made  int
}

const perGroup = 1000

func (l *lists) group(i int) resource.ID {
	id, err := resource.Parse(fmt.Sprintf("%s/resourceGroups/load-%06d", l.sub, i/perGroup))
	if err != nil {
		panic(err)
	}
	return id
}

func (l *lists) identity(i int) resource.ID {
	id, err := l.group(i).Extension("Microsoft.ManagedIdentity/userAssignedIdentities", fmt.Sprintf("id-%07d", i))
	if err != nil {
		panic(err)
	}
	return id
}

// page is the URL of the page that begins after the identity i.
func (l *lists) page(i int) string {
	url := l.Server.Names.Management() + l.sub.String() + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2024-11-30"
	if i > 0 {
		url += "&%24skiptoken=" + base64.RawURLEncoding.EncodeToString([]byte(l.identity(i-1).Key()))
	}
	return url
}

func newLists(b *testing.B, database string, n int) *lists {
	b.Helper()
	dir, err := os.MkdirTemp("", "lists")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	e, boot := newPlane(b, dir, benchDatabase(b, database))
	l := &lists{estate: e, sub: boot.Group.SubscriptionID()}
	begin := time.Now()
	for i := 0; i < n; i += perGroup {
		l.load(b, i, min(i+perGroup, n))
	}
	b.Logf("%d identities loaded in %v", n, time.Since(begin).Round(time.Millisecond))
	got, err := e.Server.STS.ForWorkload(b.Context(), access.Caller{Tenant: boot.Tenant, Principal: "host:bench"},
		sts.Request{Audience: e.Server.Names.Management(), Workload: boot.Owner})
	if err != nil {
		b.Fatal(err)
	}
	l.token = got.Token
	return l
}

// load makes a group and its identities, in one write.
func (l *lists) load(b *testing.B, from, to int) {
	b.Helper()
	now := time.Now()
	tenant := l.Caller.Tenant
	row := func(id resource.ID) arm.Resource {
		return arm.Resource{Tenant: tenant, ID: id, Type: id.Type(), UID: uuid.NewString(), Created: now, Updated: now,
			Body: map[string]json.RawMessage{"location": json.RawMessage(`"local"`)}}
	}
	ev := audit.Event{Tenant: tenant, At: now, Action: "bench/load", Target: "/", Outcome: audit.Allowed, Principal: "bench"}
	err := l.Server.DB.Write(b.Context(), &ev, func(tx arm.Tx) error {
		if err := tx.PutResource(row(l.group(from))); err != nil {
			return err
		}
		for i := from; i < to; i++ {
			id := l.identity(i)
			if err := tx.PutResource(row(id)); err != nil {
				return err
			}
			if err := tx.PutPrincipal(directory.NewPrincipal(tenant, directory.ManagedIdentity, id, false, now)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// measure reports the median of what do takes; do returns how many items there
// were.
func (l *lists) measure(b *testing.B, do func() int) {
	b.Helper()
	do() // connections and statements are made
	var took []time.Duration
	items := 0
	for b.Loop() {
		begin := time.Now()
		items = do()
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(float64(items), "items")
}

func (l *lists) ask(b *testing.B, method, url, body string, want int) []byte {
	b.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+l.token)
	resp, err := l.api.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		b.Fatalf("%s %s = %d %s, %v", method, url, resp.StatusCode, text, err)
	}
	return text
}

func (l *lists) list(b *testing.B, url string) int {
	b.Helper()
	var page struct{ Value []json.RawMessage }
	if err := json.Unmarshal(l.ask(b, http.MethodGet, url, "", http.StatusOK), &page); err != nil {
		b.Fatal(err)
	}
	return len(page.Value)
}

func (l *lists) create(b *testing.B) int {
	b.Helper()
	l.made++
	url := fmt.Sprintf("%s%s/providers/Microsoft.ManagedIdentity/userAssignedIdentities/new-%07d?api-version=2024-11-30", l.Server.Names.Management(), l.group(0), l.made)
	l.ask(b, http.MethodPut, url, `{"location":"local"}`, http.StatusCreated)
	return 1
}
