package arm_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/testkit"
)

const (
	fics     = "/federatedIdentityCredentials"
	roleMIC  = "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59" // Managed Identity Contributor
	exchange = "api://AzureADTokenExchange"
)

// fic is the body of a credential for a subject.
func fic(issuer, subject string) string {
	return fmt.Sprintf(`{"properties":{"issuer":%q,"subject":%q,"audiences":[%q]}}`, issuer, subject, exchange)
}

func TestFederatedCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/deploy"
	at := id + fics + "/github"
	r := w.owner.must(404, "PUT", at, fic("https://issuer.example", "s"))
	if r.str("error", "code") != "ParentResourceNotFound" {
		t.Errorf("without its identity: %s", r.text)
	}
	w.owner.must(201, "PUT", id, local)
	r = w.owner.must(201, "PUT", at, fic("https://issuer.example/Realm", "repo:org/app:ref:refs/heads/main"))
	etag := r.header.Get("ETag")
	want := map[string]any{"issuer": "https://issuer.example/Realm", "subject": "repo:org/app:ref:refs/heads/main", "audiences": []any{exchange}}
	for what, r := range map[string]reply{"PUT": r, "GET": w.owner.must(200, "GET", at, ""), "GET in another case": w.owner.must(200, "GET", strings.ToLower(at), "")} {
		if diff := cmp.Diff(want, r.body["properties"]); diff != "" || r.str("name") != "github" || r.str("id") != at ||
			r.str("type") != "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials" || r.header.Get("ETag") != etag {
			t.Errorf("%s: %s\n%s", what, r.text, diff)
		}
	}
	// All of it but the name can change; a client that saw another one is told.
	w.owner.must(412, "PUT", at, fic("https://other.example", "x"), "If-Match", `"0"`)
	w.owner.must(412, "PUT", at, fic("https://other.example", "x"), "If-None-Match", "*")
	r = w.owner.must(200, "PUT", at, `{"properties":{"issuer":"https://token.actions.githubusercontent.com","audiences":["a","b"],"subject":null,
		"claimsMatchingExpression":{"value":"claims['sub'] matches 'repo:org/*' and claims['repository_owner_id'] eq '1'","languageVersion":1}}}`, "If-Match", etag)
	want = map[string]any{"issuer": "https://token.actions.githubusercontent.com", "audiences": []any{"a", "b"}, "claimsMatchingExpression": map[string]any{
		"value": "claims['sub'] matches 'repo:org/*' and claims['repository_owner_id'] eq '1'", "languageVersion": json.Number("1"),
	}}
	if diff := cmp.Diff(want, r.body["properties"]); diff != "" {
		t.Errorf("with an expression: %s", diff)
	}
	if evs := w.of(tenantA, r); len(evs) != 1 || evs[0].Outcome != audit.Allowed || evs[0].Target != at || !strings.HasSuffix(evs[0].Action, "federatedIdentityCredentials/write") {
		t.Errorf("on record: %+v", evs)
	}
	w.owner.must(200, "DELETE", at, "")
	w.owner.must(204, "DELETE", at, "")
	w.owner.must(404, "GET", at, "")
	w.owner.must(404, "GET", uais+"/none"+fics, "")
}

// TestFederatedCredentialsAreRefused: each with what is wrong and what was
// expected, and nothing is changed.
func TestFederatedCredentialsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/deploy"
	w.owner.must(201, "PUT", id, local)
	w.owner.must(201, "PUT", id+fics+"/first", fic("https://issuer.example", "s"))
	const aud = `"audiences":["a"]`
	for _, tt := range []struct {
		name, body string
		status     int
		says       string
	}{
		{"ab", fic("https://i.example", "s"), 400, "3 to 120 letters"},
		{"-abc", fic("https://i.example", "s"), 400, "3 to 120 letters"},
		{"a.bc", fic("https://i.example", "s"), 400, "3 to 120 letters"},
		{strings.Repeat("a", 121), fic("https://i.example", "s"), 400, "3 to 120 letters"},
		{"two", `{}`, 400, "The member 'properties' is missing"},
		{"two", `{"properties":{}}`, 400, "'properties.issuer' is empty"},
		{"two", `{"properties":{"issuer":5}}`, 400, "needs 'issuer' (a string)"},
		{"two", fic("http://i.example", "s"), 400, "does not begin with https://"},
		{"two", fic("https://i.example/?q", "s"), 400, "query or a fragment"},
		{"two", fic("https://i.example", ""), 400, "Exactly one of"},
		{"two", `{"properties":{"issuer":"https://i.example","subject":"s"}}`, 400, "'properties.audiences' has 0 entries"},
		{"two", `{"properties":{"issuer":"https://i.example","subject":"s",` + aud + `,"claimsMatchingExpression":{"value":"claims['a'] eq 'b'","languageVersion":1}}}`, 400, "Exactly one of"},
		{"two", `{"properties":{"issuer":"https://i.example",` + aud + `,"claimsMatchingExpression":{"value":"claims['a'] eq 'b'"}}}`, 400, "languageVersion' is 0; 1 was expected"},
		{"two", `{"properties":{"issuer":"https://i.example",` + aud + `,"claimsMatchingExpression":{"value":"claims['a'] eq 'b'","languageVersion":2}}}`, 400, "languageVersion' is 2"},
		{"two", `{"properties":{"issuer":"https://i.example",` + aud + `,"claimsMatchingExpression":{"value":"x","languageVersion":1,"language":"rego"}}}`, 400, "language' is 'rego'; matching or cel"},
		{"two", `{"properties":{"issuer":"https://i.example",` + aud + `,"claimsMatchingExpression":{"value":"claims['a'] is 'b'","languageVersion":1}}}`, 400, "at character 13: the operator eq or matches"},
		{"two", `{"properties":{"issuer":"https://i.example",` + aud + `,"claimsMatchingExpression":{"value":"sub == 'a' && nobody","languageVersion":1,"language":"cel"}}}`, 400, "at line 1, character 15: undeclared reference to 'nobody'"},
		{"two", fic("https://issuer.example", "s"), 409, "Issuer and subject combination already exists"},
		{"two", `{"properties":{"issuer":"https://i.example","Issuer":"https://j.example","subject":"s",` + aud + `}}`, 400, "are one member"},
	} {
		r := w.owner.must(tt.status, "PUT", id+fics+"/"+tt.name, tt.body)
		if !strings.Contains(r.str("error", "message"), tt.says) {
			t.Errorf("%s: %s, want %q", tt.body, r.text, tt.says)
		}
	}
	w.owner.must(400, "PATCH", id+fics+"/first", `{"properties":{"issuer":"http://i.example"}}`)
	w.owner.must(400, "PATCH", id+fics+"/first", `{"properties":{"subject":null}}`)
	if got := w.owner.must(200, "GET", id+fics, "").values(); len(got) != 1 || got[0]["properties"].(map[string]any)["issuer"] != "https://issuer.example" {
		t.Errorf("afterwards there are %v, want the first as it was", got)
	}
	// The pair is the identity's own, and compares exactly.
	w.owner.must(201, "PUT", id+fics+"/slash", fic("https://issuer.example/", "s"))
	w.owner.must(201, "PUT", id+fics+"/case", fic("https://issuer.example", "S"))
	w.owner.must(201, "PUT", uais+"/other", local)
	w.owner.must(201, "PUT", uais+"/other"+fics+"/first", fic("https://issuer.example", "s"))
	w.owner.must(200, "DELETE", id+fics+"/first", "")
	w.owner.must(201, "PUT", id+fics+"/two", fic("https://issuer.example", "s"))
}

// TestManyFederatedCredentials: as many as are wanted, written at once, listed
// page by page, gone with their identity. No issuer hears of it.
func TestManyFederatedCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.srv.ARM.Patience = time.Nanosecond // these clients do not poll, however long it takes
	var asked atomic.Int64
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			_ = c.Close()
		}
	}()
	issuer := "https://" + ln.Addr().String()
	id := uais + "/many"
	w.owner.must(201, "PUT", id, local)
	const n = 64
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r, err := w.owner.send("PUT", fmt.Sprintf("%s%s/fic-%03d", id, fics, i), fic(issuer, fmt.Sprint("pod:", i)))
			if err != nil || r.status != 201 || r.header.Get("Azure-AsyncOperation") != "" {
				t.Errorf("PUT %d of %d at once: %d %s, %v", i, n, r.status, r.text, err)
			}
		})
	}
	all.Wait()
	for top, pages := range map[string]int{"": 1, "&$top=64": 1, "&$top=10": 7, "&$top=1000": 1} {
		seen, next, count := map[string]bool{}, id+fics+"?api-version=2024-11-30"+top, 0
		for ; next != ""; count++ {
			r := w.owner.must(200, "GET", next, "")
			for _, v := range r.values() {
				seen[v["name"].(string)] = true
			}
			next = r.str("nextLink")
		}
		if len(seen) != n || count != pages {
			t.Errorf("with %q: %d credentials on %d pages, want %d on %d", top, len(seen), count, n, pages)
		}
	}
	for _, bad := range []string{"$top=0", "$top=-1", "$top=x", "$top=1&$top=2", "$skiptoken=%25"} {
		w.owner.must(400, "GET", id+fics+"?api-version=2024-11-30&"+bad, "")
	}
	if got := asked.Load(); got != 0 {
		t.Errorf("writing asked the issuer %d times", got)
	}
	p, err := w.srv.DB.PrincipalOf(t.Context(), tenantA, strings.ToLower(id))
	if err != nil {
		t.Fatal(err)
	}
	w.owner.must(200, "DELETE", id, "")
	w.owner.must(404, "GET", id+fics+"/fic-001", "")
	left, err := w.srv.DB.FederatedCredentials(t.Context(), tenantA, p.ID, arm.Page{})
	if err != nil || len(left) != 0 {
		t.Errorf("the deleted identity has %d credentials, %v", len(left), err)
	}
	// Under the same name there is another identity, which trusts nobody.
	w.owner.must(201, "PUT", id, local)
	if got := w.owner.must(200, "GET", id+fics, "").values(); len(got) != 0 {
		t.Errorf("the new identity has %d credentials", len(got))
	}
}

// TestWhoMayFederate: whoever may write a credential can become the identity.
func TestWhoMayFederate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/deploy"
	w.owner.must(201, "PUT", id, local)
	w.owner.must(201, "PUT", id+fics+"/first", fic("https://issuer.example", "s"))
	w.owner.must(201, "PUT", id+"2", local) // a name that begins alike
	w.owner.must(201, "PUT", sub+"/resourceGroups/g2", local)
	test := id + "/evaluateFederatedToken"
	const claims = `{"claims":{"iss":"https://issuer.example","sub":"s","aud":"x"}}`
	for _, tt := range []struct {
		name, role                 string
		read, write, delete, check int
	}{
		{"contributor", roleContributor + " " + g1, 200, 201, 200, 200},
		{"manager", roleMIC + " " + g1, 200, 201, 200, 200},
		{"managerofone", roleMIC + " " + id, 200, 201, 200, 200},
		{"reader", roleReader + " " + g1, 200, 403, 403, 200},
		// May attach it to a machine that is theirs, and not have others become it.
		{"operator", roleOperator + " " + g1, 200, 403, 403, 200},
		{"elsewhere", roleContributor + " " + sub + "/resourceGroups/g2", 403, 403, 403, 403},
		{"besides", roleOwner + " " + uais + "/deploy2", 403, 403, 403, 403},
		{"vaults", roleVaults + " " + sub, 403, 403, 403, 403},
		{"itself", "", 403, 403, 403, 403},
	} {
		var roles []string
		if tt.role != "" {
			roles = []string{tt.role}
		}
		c := w.as(tenantA, tt.name, roles...)
		c.must(tt.read, "GET", id+fics+"/first", "")
		c.must(tt.read, "GET", id+fics, "")
		c.must(tt.write, "PUT", id+fics+"/"+tt.name, fic("https://evil.example", tt.name))
		if tt.write == 403 {
			c.must(403, "PUT", id+fics+"/first", fic("https://evil.example", "s"))
			c.must(403, "PATCH", id+fics+"/first", `{"properties":{"subject":"evil"}}`)
		}
		c.must(tt.delete, "DELETE", id+fics+"/"+map[bool]string{true: tt.name, false: "first"}[tt.delete == 200], "")
		c.must(tt.check, "POST", test, claims)
		if tt.read == 403 { // whether there is one is not told
			c.must(403, "GET", id+fics+"/none", "")
			c.must(403, "GET", uais+"/none"+fics, "")
			c.must(403, "POST", uais+"/none/evaluateFederatedToken", claims)
		}
	}
	b := w.addTenant(tenantB)
	b.must(404, "PUT", id+fics+"/first", fic("https://evil.example", "s")) // a name is a tenant's own
	got := w.owner.must(200, "GET", id+fics, "").values()
	if len(got) != 1 || got[0]["properties"].(map[string]any)["issuer"] != "https://issuer.example" {
		t.Errorf("afterwards there are %v, want the first as it was", got)
	}
}

func TestExpressionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := uais + "/deploy"
	w.owner.must(201, "PUT", id, local)
	body := func(i int) string {
		return fmt.Sprintf(`{"properties":{"issuer":"https://i.example","audiences":["a"],"claimsMatchingExpression":{"value":"claims['sub'] eq '%d'","languageVersion":1}}}`, i)
	}
	b := w.builder(tenantA)
	for i := range 200 {
		var doc arm.Document
		if err := json.Unmarshal([]byte(body(i)), &doc); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.srv.ARM.Put(t.Context(), b.Caller, resource.MustParse(fmt.Sprintf("%s%s/fic-%03d", id, fics, i)), doc, false, arm.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.owner.must(409, "PUT", id+fics+"/more", body(200)); !strings.Contains(r.text, "has 200 credentials with expressions") {
		t.Error(r.text)
	}
	w.owner.must(200, "PUT", id+fics+"/fic-001", body(999)) // no more than there were
	w.owner.must(201, "PUT", id+fics+"/subject", fic("https://i.example", "s"))
	w.owner.must(200, "PUT", id+fics+"/fic-002", fic("https://i.example", "t"))
	w.owner.must(201, "PUT", id+fics+"/more", body(200))
}

// TestEvaluateFederatedToken: would it do, and if not, what came nearest?
func TestEvaluateFederatedToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	i := testkit.NewIssuer(t)
	id := uais + "/deploy"
	w.owner.must(201, "PUT", id, local)
	test := id + "/evaluateFederatedToken"
	r := w.owner.must(200, "POST", test, `{"claims":{}}`)
	if diff := cmp.Diff(map[string]any{
		"matches": false, "nearest": []any{}, "others": json.Number("0"), "signature": map[string]any{"verified": false, "why": "there is none: these are claims without a token"},
	}, r.body); diff != "" {
		t.Errorf("without credentials: %s", diff)
	}
	w.owner.must(201, "PUT", id+fics+"/web", fic(i.URL, "pod:web"))
	w.owner.must(201, "PUT", id+fics+"/db1", fic(i.URL, "pod:db"))
	w.owner.must(201, "PUT", id+fics+"/far", fic("https://far.example", "pod:web"))
	raw := i.Token(i.Claims(start, "pod:web2", nil))
	r = w.owner.must(200, "POST", test, `{"token":"`+raw+`"}`)
	near, _ := r.body["nearest"].([]any)
	if len(near) != 3 || r.body["matches"] != false {
		t.Fatalf("a token that matches none: %s", r.text)
	}
	if diff := cmp.Diff(map[string]any{"credential": "web", "matches": false, "parts": []any{
		map[string]any{"part": "issuer", "matches": true, "why": fmt.Sprintf("both are %q", i.URL)},
		map[string]any{"part": "subject", "matches": false, "why": `differs at character 8: expected its end, the token has "2"`},
		map[string]any{"part": "audience", "matches": true, "why": `the token is for "api://AzureADTokenExchange"`},
	}}, near[0]); diff != "" {
		t.Errorf("the nearest: %s", diff)
	}
	if !strings.Contains(r.str("signature", "why"), "asking for them was not wanted") || i.Asked.Load() != 0 {
		t.Errorf("the signature: %s; the issuer was asked %d times", r.text, i.Asked.Load())
	}
	good := i.Token(i.Claims(start, "pod:web", nil))
	r = w.owner.must(200, "POST", test, `{"token":"`+good+`","verify":true}`)
	// The issuer is on loopback, and this installation does not go there.
	if r.body["matches"] != true || r.str("credential") != "web" || !strings.Contains(r.str("signature", "why"), "its address is loopback") || i.Asked.Load() != 0 {
		t.Errorf("a token that matches: %s", r.text)
	}
	stranger := testkit.NewIssuer(t)
	r = w.owner.must(200, "POST", test, `{"token":"`+stranger.Token(stranger.Claims(start, "pod:web", nil))+`","verify":true}`)
	if r.body["matches"] != false || !strings.Contains(r.str("signature", "why"), "no credential of its issuer") || stranger.Asked.Load() != 0 {
		t.Errorf("a stranger's token: %s", r.text)
	}
	for body, says := range map[string]string{
		`{}`: "either 'token'", `{"token":"x","claims":{}}`: "either 'token'", `{"token":5}`: "either 'token'", `{"claims":5}`: "not what a token could say",
		`{"token":"` + good[:50] + `"}`: "not one that could be exchanged", `{"claims":{"sub":"a","sub":"b"}}`: "twice", `[]`: "either 'token'",
	} {
		if r := w.owner.must(400, "POST", test, body); !strings.Contains(r.text, says) || strings.Contains(r.text, good[:50]) {
			t.Errorf("%s: %s, want %q", body, r.text, says)
		}
	}
	for _, ev := range w.events(tenantA) {
		if b, _ := json.Marshal(ev); strings.Contains(string(b), strings.Split(good, ".")[2]) || strings.Contains(string(b), good[:50]) {
			t.Errorf("the record holds a token: %s", b)
		}
	}
	// A machine's own token is checked without asking anybody.
	vm := w.as(tenantA, "pool")
	w.owner.must(201, "PUT", id+fics+"/own", fic(w.srv.STS.IssuerV2(tenantA), vm.oid))
	r = w.owner.must(200, "POST", test, `{"token":"`+vm.tokenFor(exchange)+`"}`)
	if r.body["matches"] != true || r.str("credential") != "own" || r.body["signature"].(map[string]any)["verified"] != true {
		t.Errorf("a machine's own token: %s", r.text)
	}
}
