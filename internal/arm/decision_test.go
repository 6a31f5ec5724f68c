package arm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
)

const (
	g2        = sub + "/resourceGroups/g2"
	demoVault = g1 + "/providers/Microsoft.KeyVault/vaults/demo"
	demo      = demoVault + "/secrets/db"
	decisions = "/providers/Innate.Authorization/decisions/"

	getSecret   = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	secretsUser = "4633458b-17de-408a-b874-0445c86b69e6"
	readGet     = `{"dataAction":"` + getSecret + `"}`
)

func about(who, more string) string { return `{"principalId":"` + who + `"` + more + `}` }

func ofSecret(who string) string { return about(who, `,"dataAction":"`+getSecret+`"`) }

// write writes what no surface is asked for here.
func (w *world) write(fn func(tx arm.Tx) error) {
	w.t.Helper()
	ev := audit.Event{Tenant: tenantA, At: start, Action: "test", Target: "/", Outcome: audit.Allowed}
	if err := w.srv.DB.Write(w.t.Context(), &ev, fn); err != nil {
		w.t.Fatal(err)
	}
}

// team makes a group with members and returns its object id.
func (w *world) team(name string, members ...string) string {
	w.t.Helper()
	id := uuid.NewString()
	w.write(func(tx arm.Tx) error {
		if err := tx.PutGroup(arm.Group{Tenant: tenantA, ID: id, Name: name, Created: start, Updated: start}); err != nil {
			return err
		}
		for _, m := range members {
			if _, err := tx.AddMember(id, m); err != nil {
				return err
			}
		}
		return nil
	})
	return id
}

// grant gives a role at a scope that need not exist, as a secret need not.
func (w *world) grant(role, who, scope, condition string) string {
	w.t.Helper()
	id := assignmentID(scope, uuid.NewString())
	a := arm.RoleAssignment{Tenant: tenantA, PrincipalType: "ServicePrincipal", Created: start, Updated: start}
	a.ID, a.Scope, a.Role, a.Principal, a.Condition = resource.MustParse(id), resource.MustParse(scope), role, who, condition
	w.write(func(tx arm.Tx) error { return tx.PutRoleAssignment(a) })
	return id
}

func (w *world) denies(action, who, scope string, except ...string) string {
	w.t.Helper()
	id := resource.MustParse(strings.TrimSuffix(scope, "/") + "/providers/Microsoft.Authorization/denyAssignments/" + uuid.NewString())
	d := arm.DenyAssignment{Tenant: tenantA, Created: start, Updated: start, Denial: access.Denial{
		ID: id, Name: "no entry", Scope: resource.MustParse(scope), Principals: []string{who}, Excluded: except,
		Permissions: []access.Permission{{DataActions: []string{action}}},
	}}
	w.write(func(tx arm.Tx) error { return tx.PutDenyAssignment(d) })
	return id.String()
}

// list follows keys into an answer to a list of objects.
func (r reply) list(path ...string) []map[string]any {
	v := any(r.body)
	for _, k := range path {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	l, _ := v.([]any)
	var out []map[string]any
	for _, e := range l {
		m, _ := e.(map[string]any)
		out = append(out, m)
	}
	return out
}

// column is what the members have under a key, in words.
func column(rows []map[string]any, key string) []string {
	out := []string{}
	for _, r := range rows {
		out = append(out, fmt.Sprint(r[key]))
	}
	return out
}

func TestCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.as(tenantA, "app")
	ask := func(body string) reply { t.Helper(); return w.owner.must(200, "POST", demo+decisions+"check", body) }
	says := func(r reply, allowed bool, summary string, why ...string) {
		t.Helper()
		if r.body["allowed"] != allowed || r.str("summary") != summary || !slices.Equal(column(r.list("reasons"), "why"), why) {
			t.Errorf("%s\nwant %v, %q because %q", r.text, allowed, summary, why)
		}
	}
	says(ask(ofSecret(app.oid)), false, "no role assignment allows it")

	team := w.team("readers", app.oid)
	by := w.grant(secretsUser, team, g1, "")
	r := ask(ofSecret(app.oid))
	says(r, true, "allowed by "+by, "its role has "+getSecret)
	reason := r.list("reasons")[0]
	if reason["id"] != by || reason["name"] != "Key Vault Secrets User" || reason["scope"] != g1 || reason["type"] != "RoleAssignment" ||
		fmt.Sprint(reason["group"]) != fmt.Sprint(map[string]any{"id": team, "name": "readers"}) {
		t.Errorf("the reason is %v", reason)
	}
	for name, body := range map[string]string{
		"by client id": ofSecret(app.client), "in upper case": ofSecret(strings.ToUpper(app.oid)),
		"by its resource": `{"resourceId":"` + app.id.String() + `","dataAction":"` + getSecret + `"}`,
	} {
		if r := ask(body); r.body["allowed"] != true || r.str("principal", "id") != app.oid || r.str("principal", "resourceId") != app.id.String() {
			t.Errorf("%s: %s", name, r.text)
		}
	}
	// A management action is none on data, and another one than the role has.
	says(ask(about(app.oid, `,"action":"`+getSecret+`"`)), false, "no role assignment allows it", "its role does not have the action")

	deny := w.denies(getSecret, access.Everyone, demo)
	says(ask(ofSecret(app.oid)), false, "refused by the deny assignment "+deny, "it has "+getSecret, "its role has "+getSecret)
	w.write(func(tx arm.Tx) error { return tx.DeleteDenyAssignment(strings.ToLower(deny)) })

	w.write(func(tx arm.Tx) error {
		p, err := tx.Principal(app.oid)
		if err != nil {
			return err
		}
		p.Enabled = false
		return tx.PutPrincipal(p)
	})
	says(ask(ofSecret(app.oid)), false, "the principal is disabled: its tokens are refused", "its role has "+getSecret)
}

func TestCheckTakesAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := w.as(tenantA, "app")
	w.grant(secretsUser, app.oid, g1, "@Resource[Microsoft.KeyVault/vaults/secrets:name] StringLike 'shop-*' AND @Request[size] NumericLessThan 5")
	// Outside of a vault nothing is known of a secret but what is given.
	for attributes, want := range map[string]bool{
		`{}`: false,
		`{"resource":{"Microsoft.KeyVault/vaults/secrets:name":"shop-db"},"request":{"size":4}}`:          true,
		`{"resource":{"microsoft.keyvault/vaults/secrets:NAME":["shop-db"]},"request":{"size":[4]}}`:      true,
		`{"resource":{"Microsoft.KeyVault/vaults/secrets:name":"shop-db"},"request":{"size":5}}`:          false,
		`{"principal":{"Microsoft.KeyVault/vaults/secrets:name":"shop-db"},"request":{"size":4}}`:         false,
		`{"resource":{"Microsoft.KeyVault/vaults/secrets:name":["shop-db","x"]},"request":{"size":true}}`: false,
	} {
		r := w.owner.must(200, "POST", g1+decisions+"check", about(app.oid, `,"dataAction":"`+getSecret+`","attributes":`+attributes))
		if r.body["allowed"] != want {
			t.Errorf("%s: %s, want %v", attributes, r.text, want)
		}
		if depends := r.list("reasons")[0]["depends"] == true; depends != (attributes != `{"resource":{"Microsoft.KeyVault/vaults/secrets:name":"shop-db"},"request":{"size":5}}` && !want) {
			t.Errorf("%s: depends %v: %s", attributes, depends, r.text)
		}
	}
}

// TestDecisionsTellOnlyWhatMayBeRead: who may not read role assignments learns
// about itself alone, and who may read some of them learns of those.
func TestDecisionsTellOnlyWhatMayBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.owner.must(201, "PUT", g2, local)
	nobody, reader, app := w.as(tenantA, "nobody"), w.as(tenantA, "reader", roleReader+" "+g1), w.as(tenantA, "app", roleReader+" "+sub)
	w.grant(secretsUser, app.oid, demo, "")
	w.grant(secretsUser, app.oid, g2, "")

	for name, body := range map[string]string{
		"check": ofSecret(app.oid), "whoCan": readGet, "whatCan": about(app.oid, ""),
		"whatBreaks": `{"roleAssignmentId":"` + assignmentID(g1, uuid.NewString()) + `"}`,
	} {
		r := nobody.refused(403, "AuthorizationFailed", "POST", g1+decisions+name, body)
		if evs := w.of(tenantA, r); len(evs) != 1 || evs[0].Outcome != audit.Denied || evs[0].Action != "Microsoft.Authorization/roleAssignments/read" {
			t.Errorf("%s: on record %+v", name, evs)
		}
		// Whether somebody is there, who may not ask is not told.
		nobody.refused(403, "AuthorizationFailed", "POST", g1+decisions+name, strings.Replace(body, app.oid, uuid.NewString(), 1))
	}
	reader.refused(403, "AuthorizationFailed", "POST", sub+decisions+"check", ofSecret(app.oid))
	reader.refused(403, "AuthorizationFailed", "POST", sub+decisions+"whoCan", readGet)
	reader.refused(403, "AuthorizationFailed", "POST", g2+decisions+"whatCan", about(app.oid, ""))
	for _, name := range []string{"check", "whatCan"} {
		body := map[string]string{"check": readGet, "whatCan": `{}`}[name]
		r := nobody.must(200, "POST", demo+decisions+name, body)
		if r.str("principal", "id") != nobody.oid {
			t.Errorf("%s of oneself: %s", name, r.text)
		}
		if evs := w.of(tenantA, r); len(evs) != 1 || evs[0].Action != "Innate.Authorization/decisions/"+name+"/action" || !strings.HasPrefix(evs[0].Reason, "asks about itself") {
			t.Errorf("%s of oneself: on record %+v", name, evs)
		}
	}
	nobody.must(200, "POST", demo+decisions+"check", ofSecret(nobody.client))

	scopes := func(c *caller, at, name, body, list string) []string {
		t.Helper()
		got := column(c.must(200, "POST", at+decisions+name, body).list(list), "scope")
		slices.Sort(got)
		return got
	}
	same := func(what string, got, want []string) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	// What counts at the scope is part of the answer, and what is below it;
	// what is beside it is not.
	same("check by a reader of g1", scopes(reader, g1, "check", ofSecret(app.oid), "reasons"), []string{sub, demo})
	same("check by the owner", scopes(w.owner, g1, "check", ofSecret(app.oid), "reasons"), []string{sub, demo, g2})
	same("what it can by a reader of g1", scopes(reader, g1, "whatCan", about(app.oid, ""), "roleAssignments"), []string{sub, demo})
	same("what it can below the subscription", scopes(w.owner, sub, "whatCan", about(app.oid, ""), "roleAssignments"), []string{sub, demo, g2})
	same("what it can itself", scopes(app, sub, "whatCan", `{}`, "roleAssignments"), []string{sub, demo, g2})

	b := w.addTenant(tenantB)
	b.refused(400, "PrincipalNotFound", "POST", sub+decisions+"check", ofSecret(app.oid))
	if r := b.must(200, "POST", sub+decisions+"whoCan", `{"action":"Microsoft.Compute/virtualMachines/read"}`); strings.Contains(r.text, app.oid) {
		t.Errorf("tenant B is told of A's: %s", r.text)
	}
}

func TestWhoCan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.root()
	shared := uais + "/shared"
	root.must(201, "PUT", shared, local)
	oid := root.must(200, "GET", shared, "").str("properties", "principalId")
	for _, vm := range []string{"one", "two"} {
		root.must(201, "PUT", vms+"/"+vm, `{"location":"local","identity":{"type":"UserAssigned","userAssignedIdentities":{"`+shared+`":{}}}}`)
	}
	host := g1 + "/providers/Innate.Fleet/hosts/h1"
	root.must(201, "PUT", host, `{}`)
	root.must(201, "PUT", host+"/placements/p1", `{"properties":{"door":"run","resourceId":"`+vms+`/one","selectors":["unix:uid:7"]}}`)
	inner := w.team("inner", oid)
	team := w.team("readers", inner)
	app, out, maybe := w.as(tenantA, "app"), w.as(tenantA, "out"), w.as(tenantA, "maybe")
	direct := w.grant(secretsUser, oid, demo, "")
	byTeam := w.grant(secretsUser, team, g1, "")
	w.grant(secretsUser, app.oid, g2, "")
	w.grant(secretsUser, out.oid, demo, "")
	w.grant(secretsUser, maybe.oid, demo, "@Resource[x] StringEquals 'y'")
	deny := w.denies(getSecret, out.oid, g1)

	r := root.must(200, "POST", demo+decisions+"whoCan", readGet)
	rows := map[string]map[string]any{}
	for _, row := range r.values() {
		p, _ := row["principal"].(map[string]any)
		rows[fmt.Sprint(p["id"])] = row
	}
	if len(rows) != 3 || len(r.values()) != 3 {
		t.Fatalf("who can: %s", r.text)
	}
	row := reply{body: rows[oid]}
	if row.body["allowed"] != true || row.body["depends"] != nil {
		t.Errorf("the identity's row: %v", row.body)
	}
	ids := column(row.list("paths"), "id")
	slices.Sort(ids)
	if want := []string{direct, byTeam}; !slices.Equal(ids, slices.Sorted(slices.Values(want))) {
		t.Errorf("by the paths %q, want %q", ids, want)
	}
	for _, p := range row.list("paths") {
		if p["id"] == byTeam && (reply{body: p}).str("group", "name") != "readers" {
			t.Errorf("the path by the group: %v", p)
		}
	}
	if got := column(row.list("identityOf"), "resourceId"); !slices.Equal(got, []string{vms + "/one", vms + "/two"}) {
		t.Errorf("it is the identity of %q", got)
	}
	place := (reply{body: row.list("identityOf")[0]}).list("places")
	if len(place) != 1 || place[0]["host"] != host || place[0]["id"] != host+"/placements/p1" || place[0]["door"] != "run" || fmt.Sprint(place[0]["selectors"]) != "[unix:uid:7]" {
		t.Errorf("it is placed at %v", place)
	}
	if row := rows[out.oid]; row["allowed"] != false || !slices.Contains(column((reply{body: row}).list("paths"), "id"), deny) {
		t.Errorf("who is denied: %v", row)
	}
	if row := rows[maybe.oid]; row["allowed"] != false || row["depends"] != true {
		t.Errorf("whose condition is unknown: %v", row)
	}

	// Who may read the roles of the vault and no machine is told how many there are.
	const rbac = "f58310d9-a9f6-439a-9e8d-f62e7b41a168" // reads everything
	limited := w.as(tenantA, "limited", rbac+" "+uais+"/shared")
	w.grant(rbac, limited.oid, demo, "")
	r = limited.must(200, "POST", demo+decisions+"whoCan", readGet)
	for _, row := range r.values() {
		if (reply{body: row}).str("principal", "id") == oid && (fmt.Sprint(row["hiddenResources"]) != "2" || len((reply{body: row}).list("identityOf")) != 0) {
			t.Errorf("who may not read the machines is told %v", row)
		}
	}
	if strings.Contains(r.text, "virtualMachines/one") || strings.Contains(r.text, host) {
		t.Errorf("who may not read the machines is told of them: %s", r.text)
	}
}

// TestDecisionsKeepAttributes: a decision by a tag of somebody's resource would
// tell what the tag is, and so it is unknown to who may not read the resource.
func TestDecisionsKeepAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.root()
	vm := root.must(201, "PUT", vms+"/one", `{"location":"local","tags":{"level":"s3cr3t"},"identity":{"type":"SystemAssigned"}}`).str("identity", "principalId")
	w.grant(secretsUser, vm, g1, "@Principal[Innate.Directory/principals/tags:level] StringEquals 's3cr3t'")
	w.grant(secretsUser, vm, demo, "@Principal[Innate.Directory/principals/tags:level] StringEquals 'other'")
	const rbac = "f58310d9-a9f6-439a-9e8d-f62e7b41a168"
	outside := w.as(tenantA, "outside")
	w.grant(rbac, outside.oid, demo, "")

	r := root.must(200, "POST", demo+decisions+"check", ofSecret(vm))
	if r.body["allowed"] != true || !strings.Contains(r.text, "is 's3cr3t'") {
		t.Errorf("who may read the machine is told %s", r.text)
	}
	for _, ask := range []struct{ name, body string }{{"check", ofSecret(vm)}, {"whoCan", readGet}} {
		r := outside.must(200, "POST", demo+decisions+ask.name, ask.body)
		if strings.Contains(r.text, `"allowed":true`) || !strings.Contains(r.text, `"depends":true`) || strings.Contains(r.text, "is 's3cr3t'") {
			t.Errorf("%s: who may not read the machine is told %s", ask.name, r.text)
		}
	}
	// What somebody gives goes before what is there, also in another case.
	r = outside.must(200, "POST", demo+decisions+"check", about(vm, `,"dataAction":"`+getSecret+`","attributes":{"principal":{"innate.directory/principals/TAGS:level":"other"}}`))
	if r.body["allowed"] != true {
		t.Errorf("with an attribute that is given: %s", r.text)
	}
	r = root.must(200, "POST", demo+decisions+"check", about(vm, `,"dataAction":"`+getSecret+`","attributes":{"principal":{"innate.directory/principals/TAGS:level":"third"}}`))
	if r.body["allowed"] != false {
		t.Errorf("with another than is there: %s", r.text)
	}
}

// TestDecisionsKnowTheSecret: what there is to say of a vault and a secret is
// known as when the secret is read; tags to who may read the vault.
func TestDecisionsKnowTheSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.root()
	root.must(201, "PUT", demoVault, `{"location":"local","tags":{"env":"test"},"properties":{"tenantId":"`+tenantA+`","sku":{"family":"A","name":"standard"}}}`)
	app, other := w.as(tenantA, "app"), w.as(tenantA, "other")
	w.grant(secretsUser, app.oid, g1, "@Resource[Microsoft.KeyVault/vaults/secrets:name] StringEquals 'db' AND @Resource[Microsoft.KeyVault/vaults:name] StringEquals 'demo'")
	w.grant(secretsUser, other.oid, g1, "@Resource[Microsoft.Resources/tags:env] StringEquals 'test'")
	check := func(c *caller, who, at string) string {
		t.Helper()
		return c.must(200, "POST", at+decisions+"check", ofSecret(who)).str("summary")
	}
	const depends = "it depends on a condition, of which not all is known"
	for _, tt := range []struct {
		who  *caller
		oid  string
		at   string
		want string
	}{
		{root, app.oid, demo, "allowed by"},
		{app, app.oid, demo, "allowed by"},
		{root, app.oid, demoVault + "/secrets/other", "no role assignment"},
		{root, app.oid, demoVault, depends}, // of which secret, nobody said
		{root, other.oid, demo, "allowed by"},
		{other, other.oid, demo, depends}, // its tags, it may not read
	} {
		if got := check(tt.who, tt.oid, tt.at); !strings.HasPrefix(got, tt.want) {
			t.Errorf("check %s at %s: %s, want %s", tt.oid, tt.at, got, tt.want)
		}
	}
}

// TestWhoCanPages: each principal is in one page, however many assignments and
// groups it has what it has by.
func TestWhoCanPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var apps []string
	for i := range 5 {
		apps = append(apps, w.as(tenantA, fmt.Sprint("app", i)).oid)
	}
	w.write(func(tx arm.Tx) error {
		for i := range 120 {
			scope := []string{sub, g1, demoVault, demo}[i%4]
			a := arm.RoleAssignment{Tenant: tenantA, PrincipalType: "ServicePrincipal", Created: start, Updated: start}
			id := uuid.NewString()
			p := directory.Principal{Tenant: tenantA, ID: id, Kind: directory.Application, Name: id, Enabled: true, Created: start}
			if err := tx.PutPrincipal(p); err != nil {
				return err
			}
			a.ID, a.Scope = resource.MustParse(assignmentID(scope, uuid.NewString())), resource.MustParse(scope)
			a.Role, a.Principal = secretsUser, id
			if err := tx.PutRoleAssignment(a); err != nil {
				return err
			}
		}
		return nil
	})
	for i, app := range apps {
		for _, scope := range []string{sub, g1, demoVault, demo} {
			if i%2 == 0 {
				w.grant(secretsUser, app, scope, "")
			}
			w.grant(roleSecrets, app, scope, "Exists @Resource[none]") // never holds
		}
		if i%2 == 1 {
			w.grant(secretsUser, w.team(fmt.Sprint("team", i), app), g1, "")
		}
	}
	seen, pages := map[string]int{}, 0
	for next := demo + decisions + "whoCan"; next != ""; pages++ {
		r := w.owner.must(200, "POST", next, readGet)
		for _, row := range r.values() {
			seen[(reply{body: row}).str("principal", "id")]++
		}
		next = r.str("nextLink")
	}
	for id, n := range seen {
		if n > 1 {
			t.Errorf("%s is in %d places", id, n)
		}
	}
	for _, app := range apps {
		if seen[app] != 1 {
			t.Errorf("%s is in %d places", app, seen[app])
		}
	}
	if len(seen) != 125 || pages != 2 {
		t.Errorf("%d principals in %d pages, want 125 in 2", len(seen), pages)
	}
}

func TestWhatCanAndWhatBreaks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app, other := w.as(tenantA, "app"), w.as(tenantA, "other")
	team := w.team("readers", app.oid, other.oid)
	gone := w.grant(secretsUser, team, g1, "")
	kept := w.grant(roleSecrets, other.oid, sub, "")
	partly := w.grant(secretsUser, app.oid, demo, "")
	deny := w.denies("*", app.oid, g2)

	r := w.owner.must(200, "POST", sub+decisions+"whatCan", about(app.oid, ""))
	if got := column(r.list("roleAssignments"), "id"); len(got) != 2 || !slices.Contains(got, gone) || !slices.Contains(got, partly) {
		t.Errorf("it has %q", got)
	}
	if got := column(r.list("denyAssignments"), "id"); !slices.Equal(got, []string{deny}) {
		t.Errorf("it is denied %q", got)
	}
	for _, held := range r.list("roleAssignments") {
		if held["id"] == gone && (held["name"] != "Key Vault Secrets User" || (reply{body: held}).str("group", "id") != team || !strings.Contains(fmt.Sprint(held["permissions"]), getSecret)) {
			t.Errorf("by its group it has %v", held)
		}
	}

	r = w.owner.must(200, "POST", g1+decisions+"whatBreaks", `{"roleAssignmentId":"`+gone+`"}`)
	got := map[string]string{}
	for _, row := range r.list("principals") {
		v := reply{body: row}
		words := []string{}
		for _, l := range v.list("loses") {
			words = append(words, fmt.Sprint("loses ", l["pattern"], " partly ", l["partly"]))
		}
		for _, l := range v.list("keeps") {
			words = append(words, fmt.Sprint("keeps ", l["pattern"], " by ", l["by"]))
		}
		got[v.str("principal", "id")] = strings.Join(words, "; ")
	}
	const meta = "Microsoft.KeyVault/vaults/secrets/readMetadata/action"
	for id, want := range map[string]string{
		app.oid:   "loses " + getSecret + " partly [" + partly + "]; loses " + meta + " partly [" + partly + "]",
		other.oid: "keeps " + getSecret + " by " + kept + "; keeps " + meta + " by " + kept,
	} {
		if got[id] != want {
			t.Errorf("without it %s: %s\nwant %s", id, got[id], want)
		}
	}
	if len(got) != 2 || r.str("name") != "Key Vault Secrets User" {
		t.Errorf("without it: %s", r.text)
	}
	if w.owner.do("GET", gone, "").status != 200 {
		t.Error("the question took the assignment away")
	}
	w.owner.refused(404, "ResourceNotFound", "POST", g1+decisions+"whatBreaks", `{"roleAssignmentId":"`+assignmentID(g1, uuid.NewString())+`"}`)
	w.owner.refused(400, "InvalidRequestContent", "POST", sub+decisions+"whatBreaks", `{"roleAssignmentId":"`+gone+`"}`)
}

func TestDecisionsRefuseBadQuestions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		name, body, want string
	}{
		{"check", ``, "body"},
		{"check", `null`, "no object"},
		{"check", `[]`, "no object"},
		{"check", `{}`, "One of 'action' and 'dataAction'"},
		{"check", `{"action":"a/b","dataAction":"a/b"}`, "One of 'action' and 'dataAction'"},
		{"check", `{"action":"*"}`, "The action '*' is not one operation"},
		{"check", `{"action":"a/*/read"}`, "is not one operation"},
		{"check", `{"action":"read"}`, "is not one operation"},
		{"check", `{"action":"a/` + strings.Repeat("b", 512) + `"}`, "is not one operation"},
		{"check", `{"action":"a/b","what":1}`, `unknown field "what"`},
		{"check", `{"action":"a/b","Action":"a/c"}`, "which are one member"},
		{"check", `{"action":7}`, "cannot unmarshal number"},
		{"check", `{"action":"a/b","principalId":"app"}`, "The member 'principalId' is 'app'"},
		{"check", `{"action":"a/b","resourceId":"app"}`, "The member 'resourceId' is not a resource ID"},
		{"check", `{"action":"a/b","principalId":"` + uuid.NewString() + `","resourceId":"/subscriptions/s"}`, "At most one of"},
		{"check", `{"action":"a/b","attributes":{"request":{"x":{}}}}`, "An attribute's value is {}"},
		{"check", `{"action":"a/b","attributes":{"request":{"x":[null]}}}`, "An attribute's value is null"},
		{"check", `{"action":"a/b","attributes":{"weather":{}}}`, `unknown field "weather"`},
		{"whoCan", `{"action":"a/b","principalId":"` + uuid.NewString() + `"}`, "is about everybody"},
		{"whoCan", `{}`, "One of 'action'"},
		{"whatCan", `{"action":"a/b"}`, "is about all actions"},
		{"whatBreaks", `{}`, "The member 'roleAssignmentId' is ''"},
		{"whatBreaks", `{"roleAssignmentId":"` + g1 + `"}`, "The member 'roleAssignmentId' is"},
	} {
		r := w.owner.refused(400, "InvalidRequestContent", "POST", g1+decisions+tt.name, tt.body)
		if !strings.Contains(r.str("error", "message"), tt.want) {
			t.Errorf("%s %s: %s\nwant %s", tt.name, tt.body, r.text, tt.want)
		}
	}
	w.owner.refused(400, "InvalidRequestContent", "POST", g1+decisions+"whoCan?api-version=2026-01-01&$skiptoken=%25", readGet)
	w.owner.refused(405, "MethodNotAllowed", "GET", g1+decisions+"check", "")
	w.owner.do("POST", g1+decisions+"whyNot", "{}").wrongIs(t, 404)
	w.owner.refused(400, "PrincipalNotFound", "POST", g1+decisions+"check", ofSecret(uuid.NewString()))
	w.owner.refused(400, "PrincipalNotFound", "POST", g1+decisions+"check", `{"resourceId":"`+g1+`","action":"a/b"}`)
}

func (r reply) wrongIs(t *testing.T, status int) {
	t.Helper()
	if r.status != status || r.str("error", "message") == "" {
		t.Errorf("%d %s, want %d with a message", r.status, r.text, status)
	}
}
