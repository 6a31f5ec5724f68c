package access

import (
	"math/rand/v2"
	"testing"

	"github.com/innate-id/innate/internal/resource"
)

// TestByScopeDecidesTheSame: what is left out never counts.
func TestByScopeDecidesTheSame(t *testing.T) {
	t.Parallel()
	scopes := []string{"/", top, near, "/subscriptions/s", "/subscriptions/S1", "/subscriptions/s/resourceGroups/G", "/subscriptions/s/resourceGroups/g1",
		"/subscriptions/s/resourceGroups/g/providers/a.b/c/d", "/subscriptions/s/resourceGroups/g/providers/a.b/c/d/e/f", "/subscriptions/s/resourceGroups/g/providers/a.b/c/d/providers/x.y/z/w",
		"/subscriptions/s/providers/a.b/c/d", near + "/providers/x.y/z/w"}
	r := rand.New(rand.NewPCG(1, 1))
	some := func() string { return scopes[r.IntN(len(scopes))] }
	allowed := 0
	for range 2000 {
		f := Facts{Principals: []string{"p"}}
		for range r.IntN(4) {
			f.Assignments = append(f.Assignments, assignment(everything, "p", some(), ""))
		}
		for range r.IntN(2) {
			f.Denials = append(f.Denials, denial(Denial{Principals: []string{"p"}, Permissions: all(), ScopeOnly: r.IntN(2) == 0}, some()))
		}
		at := f.ByScope()
		for _, s := range scopes {
			var above []resource.ID
			if s != "/" && s != top {
				above = append(above, resource.MustParse(top))
			}
			if s == "/subscriptions/s" {
				above = []resource.ID{resource.MustParse(near), resource.MustParse(top)}
			}
			op := Operation{Action: "a.b/c/read", Scope: resource.MustParse(s)}
			whole := f
			whole.Above = above
			want, got := Judge(op, whole).Allowed, Judge(op, at(op.Scope, above)).Allowed
			if want != got {
				t.Fatalf("%s with %v, %v: %v, want %v", s, f.Assignments, f.Denials, got, want)
			}
			if got {
				allowed++
			}
		}
	}
	if allowed == 0 {
		t.Error("nothing was ever allowed")
	}
}
