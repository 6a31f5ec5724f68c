package arm_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/sts"
)

// fuzzed serves arbitrary requests by the root of tenant A without a socket:
// what net/http itself refuses is not of interest.
func fuzzed(f *testing.F) (w *world, serve func(t *testing.T, method, path, query, body string) reply) {
	w = newWorld(f)
	w.owner.must(201, "PUT", vms+"/vm1", local)
	w.owner.must(201, "PUT", uais+"/uai", local)
	w.owner.must(201, "PUT", g1+"/providers/Innate.Fleet/hosts/h1", `{}`)
	root := w.root()
	w.srv.ARM.Limits = nil // a fuzzer is a program in a loop, and here time stands still
	h := w.srv.ARM.Handler(slog.New(slog.DiscardHandler), func(ctx context.Context, r *http.Request) (access.Caller, error) {
		return w.srv.STS.Authenticate(ctx, r, sts.ARM, "")
	})
	return w, func(t *testing.T, method, path, query, body string) reply {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" || !strings.HasPrefix(path, "/") || strings.EqualFold(strings.Trim(path, "/"), "metadata/endpoints") {
			return reply{}
		}
		u.RawQuery = query
		if strings.Contains(strings.ToLower(query), "follow") {
			return reply{} // goes on for ever
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "https://management.innate.test/", strings.NewReader(body))
		if err != nil {
			return reply{} // no method
		}
		r.URL.Path, r.URL.RawPath, r.URL.RawQuery = u.Path, u.RawPath, u.RawQuery
		r.Header.Set("Authorization", "Bearer "+root.token)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		got := reply{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
		got.body = decode(rec.Body.Bytes())
		if got.status < 400 {
			return got
		}
		if p := got.wrong(got.status, got.header.Get("X-Ms-Error-Code")); got.status >= 500 || p != "" || got.header.Get("X-Ms-Error-Code") == "" || method != "HEAD" && got.text == "" {
			t.Errorf("%s %q ?%q %q = %d %s %s", method, path, query, body, got.status, got.text, p)
		}
		return got
	}
}

func FuzzRoute(f *testing.F) {
	_, serve := fuzzed(f)
	const v = "api-version=2024-11-30"
	for _, path := range []string{
		"/", sub, g1, vms, vms + "/vm1", vms + "/vm1/start", g1 + "/resources", "/subscriptions", "/tenants", assignmentID(g1, name1),
		g1 + "/providers/Microsoft.Authorization/roleDefinitions/" + roleReader, g1 + "/providers/Innate.Audit/events", "/providers/a/b/c",
		vms + "/vm1/providers/Microsoft.ManagedIdentity/identities/default", g1 + "/providers/Innate.Fleet/hosts/h1/createEnrolmentToken",
		sub + "/providers/providers/x/y", g1 + "%2f..", g1 + "/providers/Innate.Fleet/hosts/h1/placements",
	} {
		for _, m := range []string{"GET", "PUT", "POST", "DELETE", "HEAD", "PATCH"} {
			f.Add(m, path, v)
		}
		f.Add("GET", path, v+"&$filter=roleName eq 'x'&$skiptoken=AA&after=2026-01-01T00:00:00Z")
	}
	f.Fuzz(func(t *testing.T, method, path, query string) { serve(t, method, path, query, "") })
}

func FuzzDocument(f *testing.F) {
	_, serve := fuzzed(f)
	for i, k := range kinds {
		f.Add(uint8(i), false, k.put)
		f.Add(uint8(i), true, k.patch)
	}
	f.Add(uint8(1), true, block("SystemAssigned, UserAssigned", on(uais+"/uai"), null(uais+"/x")))
	f.Add(uint8(len(kinds)), false, assignmentBody(roleReader, name1))
	f.Fuzz(func(t *testing.T, kind uint8, patch bool, body string) {
		path, method := assignmentID(g1, name1), "PUT"
		if n := int(kind) % (len(kinds) + 1); n < len(kinds) {
			path = kinds[n].id
		}
		if patch {
			method = "PATCH"
		}
		const v = "api-version=2024-11-30"
		serve(t, method, path, v, body)
		// Whatever was taken can be read again, alone and in a list.
		serve(t, "GET", path, v, "")
		serve(t, "GET", g1+"/resources", v, "")
		serve(t, "PATCH", path, v, body)
	})
}

// FuzzTemplate: what is taken of a template is read again, member by member and
// number by number, and another time round changes nothing.
func FuzzTemplate(f *testing.F) {
	_, serve := fuzzed(f)
	for _, tpl := range templates {
		f.Add(tpl.body)
	}
	f.Add(`{"location":"local","properties":{"a":[null,{"b":null}],"n":1e400,"\u00e9":"\ud83d\ude00"},"zones":null}`)
	f.Add(`{"location":"local","properties":{"osProfile":{"adminPassword":"x","computerName":"y"},"OSPROFILE2":1}}`)
	f.Fuzz(func(t *testing.T, body string) {
		const path, v = vms + "/template", "api-version=2024-11-30"
		serve(t, "DELETE", path, v, "")
		if put := serve(t, "PUT", path, v, body); put.status != 201 {
			return
		}
		got := serve(t, "GET", path, v, "")
		sent := decode([]byte(body))
		delete(sent, "identity")
		if why := lacks(sent, got.body, ""); why != "" {
			t.Errorf("of %s GET has %s: %s", body, got.text, why)
		}
		again := serve(t, "PUT", path, v, got.text)
		if again.status != 200 {
			t.Errorf("what was read cannot be written: %s = %d %s", got.text, again.status, again.text)
		}
		if why := lacks(got.body["properties"], again.body["properties"], ".properties"); why != "" {
			t.Errorf("of %s the second round has %s: %s", got.text, again.text, why)
		}
	})
}
