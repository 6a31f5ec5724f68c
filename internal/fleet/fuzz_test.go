package fleet_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// FuzzRule: what is taken for a rule lets nobody in of whom nothing is known,
// and means the same when it is read again.
func FuzzRule(f *testing.F) {
	id := resource.MustParse(vms + "/vm1" + rules + "r")
	f.Add([]byte(`{"selectors":["unix:uid:1"],"audiences":["https://a"],"grade":"kernel","mode":"audit","identity":"` + vms + `/vm1"}`))
	f.Add([]byte(`{"selectors":[]}`))
	f.Add([]byte(`{"Selectors":["unix:uid:1"],"selectors":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, r, err := fleet.ReadRule(b, id)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("%s: %v", b, err)
			}
			return
		}
		if v := evidence.Decide([]evidence.Rule{r}, evidence.Evidence{Grade: evidence.GradeKernel}, evidence.Want{}); v.Allowed && r.Enforce {
			t.Errorf("%s lets in whoever comes", b)
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		_, same, err := fleet.ReadRule(again, id)
		if diff := cmp.Diff(r, same, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%s reads as %s, which reads otherwise: %v\n%s", b, again, err, diff)
		}
	})
}

func FuzzKnown(f *testing.F) {
	f.Add([]byte(`{"certificates":[{"thumbprint":"` + strings.Repeat("AB:", 31) + `AB"}]}`))
	f.Add([]byte(`{"certificates":[{"authority":"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----","name":"a.test"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		ks, err := fleet.ReadKnown(b)
		if err != nil && !problem.Is(err, problem.Invalid) {
			t.Errorf("%s: %v", b, err)
		}
		for _, k := range ks {
			if (len(k.Thumbprint) == 64) == (k.Authority != "") {
				t.Errorf("%s reads as %+v", b, k)
			}
		}
	})
}

// FuzzTold: however a document is made, only what is listed goes out.
func FuzzTold(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"storageProfile":{"dataDisks":[[{"name":"a"}],{"managedDisk":[{"id":"x"}]}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := json.Marshal(fleet.Told(b))
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		for _, name := range []string{"customdata", "password", "secrets", "appsettings"} {
			if strings.Contains(strings.ToLower(string(out)), `"`+name+`":`) {
				t.Errorf("%s tells %s", b, out)
			}
		}
	})
}
