package access

import (
	"testing"

	"github.com/innate-id/innate/internal/resource"
)

func TestUnnarrowed(t *testing.T) {
	t.Parallel()
	const delegate = "8b54135c-b56d-4d72-a534-26097cfdc8d8" // its one block has a condition
	block := func(action, condition string) Permission {
		return Permission{Actions: []string{action}, Condition: condition}
	}
	facts := func(role, condition string) Facts {
		return Facts{
			Principals:  []string{"p"},
			Assignments: []Assignment{{ID: resource.MustParse("/providers/A.B/c/d"), Role: role, Principal: "p", Scope: resource.Root, Condition: condition}},
			Roles:       map[string]Role{"mixed": {ID: "mixed", Permissions: []Permission{block("a/read", ""), block("a/write", "Exists @Request[x]")}}},
		}
	}
	const owner = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	holds := Attributes{Request: Values{"x": {"1"}}}
	for _, tt := range []struct {
		what     string
		f        Facts
		action   string
		narrowed bool
		judged   bool // by all
		want     bool // by what is unnarrowed
	}{
		{"a plain role", facts(owner, ""), "a/write", false, true, true},
		{"a condition on the assignment", facts(owner, "Exists @Request[x]"), "a/write", true, true, false},
		{"the block without a condition", facts("MIXED", ""), "a/read", true, true, true},
		{"the block with one", facts("mixed", ""), "a/write", true, true, false},
		{"a built-in role with one", facts(delegate, ""), "Microsoft.Authorization/roleAssignments/read", true, true, false},
		{"an unknown role", facts("nobody's", ""), "a/read", false, false, false},
	} {
		op := Operation{Action: tt.action, Scope: resource.Root, Attributes: holds}
		if got := tt.f.Narrowed(); got != tt.narrowed {
			t.Errorf("%s: Narrowed = %v, want %v", tt.what, got, tt.narrowed)
		}
		if got := Judge(op, tt.f).Allowed; got != tt.judged {
			t.Errorf("%s: Judge = %v, want %v", tt.what, got, tt.judged)
		}
		if got := Judge(op, tt.f.Unnarrowed()).Allowed; got != tt.want {
			t.Errorf("%s: Judge of what is unnarrowed = %v, want %v", tt.what, got, tt.want)
		}
	}
	f := facts(owner, "")
	f.Denials = []Denial{{ID: resource.MustParse("/providers/A.B/e/f"), Scope: resource.Root, Principals: []string{Everyone}, Permissions: []Permission{block("a/*", "")}, Condition: "Exists @Request[x]"}}
	if op := (Operation{Action: "a/write", Scope: resource.Root, Attributes: holds}); !f.Narrowed() || Judge(op, f.Unnarrowed()).Allowed {
		t.Error("a denial with a condition is not a narrowing, or goes with those")
	}
}
