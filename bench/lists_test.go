package bench

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/sts"
)

// BenchmarkLists is what a page of a list costs, the first, one in the middle and
// the last (100 items each), and what it costs to create one more, in a tenant
// with a thousand and with a million user-assigned identities, 1,000 in each
// group. All is asked of the management API over TLS, with a token; the sizes are
// measured in turns. INNATE_BENCH_LARGE=1 adds the million.
//
// The identities are loaded beneath the API, as the API would have written them,
// but that the feed of changes and the audit trail know nothing of them.
func BenchmarkLists(b *testing.B) {
	const all = "/providers/Microsoft.ManagedIdentity/userAssignedIdentities?api-version=2024-11-30"
	for _, kind := range []string{"sqlite", "postgres"} {
		b.Run(kind, func(b *testing.B) {
			var sides []*lists
			for _, n := range sizes(1_000_000, 1_000) {
				sides = append(sides, newLists(b, kind, n))
			}
			for _, op := range []struct {
				what string
				do   func(*lists)
			}{
				{"first", func(l *lists) { l.list(b, all, 0) }},
				{"middle", func(l *lists) { l.list(b, all, l.n/2) }},
				{"last", func(l *lists) { l.list(b, all, l.n-100) }},
				{"mixed", func(l *lists) { l.list(b, "/resources?api-version=2021-04-01", l.n/2+perGroup/4) }},
				{"create", func(l *lists) { l.create(b) }},
			} {
				b.Run(op.what, func(b *testing.B) {
					var turns []*turn
					for _, l := range sides {
						turns = append(turns, &turn{name: strconv.Itoa(l.n), do: func() { op.do(l) }})
					}
					inTurns(b, time.Millisecond, turns...)
				})
			}
		})
	}
}

type lists struct {
	*estate
	n     int
	sub   resource.ID
	token string
	me    cursor.Reader
	pages map[int]string // tokens of pages, by the identity that they begin with
	made  int
}

const perGroup = 1000

func newLists(b *testing.B, kind string, n int) *lists {
	b.Helper()
	dir := b.TempDir()
	e, boot := newPlane(b, dir, benchDatabase(b, kind))
	l := &lists{estate: e, n: n, sub: boot.Group.SubscriptionID(), pages: map[int]string{}}
	where := filepath.Join(dir, "db")
	if kind == "postgres" {
		url, err := os.ReadFile(filepath.Join(dir, "url"))
		if err != nil {
			b.Fatal(err)
		}
		where = string(url)
	}
	begin := time.Now()
	loader := newLoader(b, kind, where)
	if err := errors.Join(loader.fill(b.Context(), n, []string{"resource", "principal", "resource_term"}, l.rows(loader.postgres)), loader.pool.Close()); err != nil {
		b.Fatal(err)
	}
	b.Logf("%d identities loaded in %v", n, time.Since(begin).Round(time.Millisecond))
	got, err := e.Server.STS.ForWorkload(b.Context(), access.Caller{Tenant: boot.Tenant, Principal: "host:bench"},
		sts.Request{Audience: e.Server.Names.Management(), Workload: boot.Owner})
	if err != nil {
		b.Fatal(err)
	}
	l.token = got.Token
	l.me = cursor.Reader{API: "management", Tenant: boot.Tenant, Principal: got.Principal.ID}
	return l
}

// The group and the identity number i, as IDs; number is one for all widths.
const (
	groupOf    = "/resourceGroups/load-%d"
	identityOf = groupOf + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id-%d"
	number     = 10_000_000
)

// rows makes the statements that make the identities from one number on and
// before another, and their groups. Object ids and the like come in no order.
func (l *lists) rows(postgres bool) func(from, to int) []string {
	body := `X'` + hex.EncodeToString([]byte(`{"location":"local"}`)) + `'`
	if postgres {
		body = `'\x` + body[2:]
	}
	tenant := l.Caller.Tenant
	// at is SQL for an ID whose numbers are SQL.
	at := func(id string, numbers ...string) string {
		for _, n := range numbers {
			id = strings.Replace(id, "%d", "' || CAST("+strconv.Itoa(number)+" + "+n+" AS TEXT) || '", 1)
		}
		return "'" + id + "'"
	}
	guid := func(kind int) string {
		return at(fmt.Sprintf("%%d-000%d-4000-8000-000000000000", kind), fmt.Sprintf("(n * %d) %% %d", crowdFactor, crowdPrime))
	}
	row := func(id, typ string, kind int) string {
		return fmt.Sprintf(`INSERT INTO resource (tenant, key, id, type, type_key, uid, body, bound_to, bound_key, etag, created_ms, updated_ms, created_by, updated_by)
			SELECT '%s', lower(%s), %s, '%s', lower('%s'), %s, %s, '', '', 1, 0, 0, 'bench', 'bench' FROM c`, tenant, id, id, typ, typ, guid(kind), body)
	}
	group := at(l.sub.String()+groupOf, "n / 1000")
	id := at(l.sub.String()+identityOf, "n / 1000", "n")
	name := at("id-%d", "n")
	return func(from, to int) []string {
		c := counted(from, to)
		return []string{
			c + row(group, "Microsoft.Resources/resourceGroups", 1) + " WHERE n % 1000 = 0",
			c + row(id, "Microsoft.ManagedIdentity/userAssignedIdentities", 2),
			c + fmt.Sprintf(`INSERT INTO principal (tenant, id, client, kind, name, resource, resource_key, system, enabled, valid_from_ms, created_ms)
				SELECT '%s', %s, %s, '%s', %s, %s, lower(%s), 0, 1, 0, 0 FROM c`, tenant, guid(3), guid(4), directory.ManagedIdentity, name, id, id),
			c + fmt.Sprintf(`INSERT INTO resource_term (tenant, resource_key, term) SELECT '%s', lower(%s), 'name=' || %s FROM c`, tenant, id, name),
		}
	}
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

// list asks for the page that begins after the identity number i - 1.
func (l *lists) list(b *testing.B, what string, i int) {
	b.Helper()
	url := l.Server.Names.Management() + l.sub.String() + what
	if i > 0 {
		url += "&%24skiptoken=" + l.page(b, i)
	}
	var page struct{ Value []struct{ Name string } }
	if err := json.Unmarshal(l.ask(b, http.MethodGet, url, "", http.StatusOK), &page); err != nil {
		b.Fatal(err)
	}
	if want := fmt.Sprintf("id-%d", number+i); len(page.Value) != 100 || i > 0 && page.Value[0].Name != want {
		b.Fatalf("GET %s has %d items, want 100 that begin with %s", url, len(page.Value), want)
	}
}

// page is the token of the page that begins with the identity number i, which a
// client that read all before it would have been given.
func (l *lists) page(b *testing.B, i int) string {
	b.Helper()
	if l.pages[i] == "" {
		key := strings.ToLower(fmt.Sprintf(l.sub.String()+identityOf, number+(i-1)/perGroup, number+i-1))
		token, err := l.Server.ARM.Cursors.Token(b.Context(), l.me, key)
		if err != nil {
			b.Fatal(err)
		}
		l.pages[i] = token
	}
	return l.pages[i]
}

func (l *lists) create(b *testing.B) {
	b.Helper()
	l.made++
	url := l.Server.Names.Management() + l.sub.String() + fmt.Sprintf(groupOf, number+l.n/2/perGroup) +
		fmt.Sprintf("/providers/Microsoft.ManagedIdentity/userAssignedIdentities/new-%07d?api-version=2024-11-30", l.made)
	l.ask(b, http.MethodPut, url, `{"location":"local"}`, http.StatusCreated)
}
