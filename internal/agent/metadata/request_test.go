package metadata

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
)

func TestEveryKindIsInEveryTable(t *testing.T) {
	t.Parallel()
	for _, k := range problem.Kinds() {
		row, ok := imdsTable[k]
		if !ok || row.status < 400 || row.code == "" {
			t.Errorf("kind %s is not in the IMDS table", k)
		}
		if statusTable[k] < 400 {
			t.Errorf("kind %s is not in the status table", k)
		}
	}
	if n := len(problem.Kinds()); len(imdsTable) != n || len(statusTable) != n {
		t.Errorf("tables have %d and %d rows, want %d", len(imdsTable), len(statusTable), n)
	}
}

func TestEverySelectorSpellingIsUnderstood(t *testing.T) {
	t.Parallel()
	const guid = "6f1e6a3c-0000-4000-8000-000000000002"
	const id = "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u"
	base := Query{APIVersion: "2018-02-01", Resource: "r"}
	for query, want := range map[string]func(*Query){
		"client_id=" + guid:                          func(q *Query) { q.ClientID = guid },
		"clientid=" + guid:                           func(q *Query) { q.ClientID = guid },
		"object_id=" + guid:                          func(q *Query) { q.ObjectID = guid },
		"principal_id=" + guid:                       func(q *Query) { q.ObjectID = guid },
		"msi_res_id=" + url.QueryEscape(id):          func(q *Query) { q.ResourceID = id },
		"mi_res_id=" + id + "&msi_res_id=" + id:      func(q *Query) { q.ResourceID = id },
		"bypass_cache=True":                          func(q *Query) { q.BypassCache = true },
		"bypass_cache=no":                            func(*Query) {},
		"token_sha256_to_refresh=" + hex64("AB", 32): func(q *Query) { q.RefreshSHA256 = hex64("ab", 32) },
	} {
		expect := base
		want(&expect)
		got, err := ParseQuery("api-version=2018-02-01&resource=r&"+query, imdsVersion)
		if err != nil {
			t.Errorf("ParseQuery(%q) = %v", query, err)
		}
		if diff := cmp.Diff(expect, got); diff != "" {
			t.Errorf("ParseQuery(%q) (-want +got):\n%s", query, diff)
		}
	}
	for _, query := range []string{
		"client_id={" + guid + "}", "client_id=urn:uuid:" + guid, "client_id=6f1e6a3c000040008000000000000002",
		"token_sha256_to_refresh=abc", "token_sha256_to_refresh=" + hex64("zz", 32), "principal_id=" + id,
	} {
		if _, err := ParseQuery("api-version=2018-02-01&resource=r&"+query, imdsVersion); !problem.Is(err, problem.Invalid) {
			t.Errorf("ParseQuery(%q) = %v, want an invalid problem", query, err)
		}
	}
}

func hex64(pair string, n int) string {
	out := ""
	for range n {
		out += pair
	}
	return out
}

func FuzzParseQuery(f *testing.F) {
	f.Add("api-version=2018-02-01&resource=https://vault.azure.net&client_id=6f1e6a3c-0000-4000-8000-000000000002")
	f.Add("api%2Dversion=2019-08-01&resource=r&mi_res_id=/subscriptions/s&bypass_cache=true")
	f.Add("api-version=2017-09-01&resource=r&clientid=")
	f.Add("resource=r&resource=r;x=%zz")
	f.Fuzz(func(t *testing.T, raw string) {
		for _, version := range []func(string) error{imdsVersion, appServiceVersion} {
			q, err := ParseQuery(raw, version)
			if err != nil {
				if p := problem.Of(err); p.Kind == problem.Internal {
					t.Errorf("ParseQuery(%q) = %v, which says nothing to the client", raw, err)
				}
				continue
			}
			if q.Resource == "" || len(q.Resource) > MaxResource || !printable(q.Resource) {
				t.Errorf("ParseQuery(%q) has the resource %q", raw, q.Resource)
			}
			named := 0
			for _, s := range []string{q.ClientID, q.ObjectID, q.ResourceID} {
				if s != "" {
					named++
				}
			}
			if named > 1 {
				t.Errorf("ParseQuery(%q) names %d identities", raw, named)
			}
			again, err := ParseQuery(url.Values{
				"api-version": {q.APIVersion}, "resource": {q.Resource}, "client_id": {q.ClientID}, "object_id": {q.ObjectID},
				"msi_res_id": {q.ResourceID}, "token_sha256_to_refresh": {q.RefreshSHA256},
			}.Encode(), version)
			again.BypassCache = q.BypassCache
			if err != nil || again != q {
				t.Errorf("ParseQuery(%q) = %+v, written again %+v, %v", raw, q, again, err)
			}
		}
	})
}
