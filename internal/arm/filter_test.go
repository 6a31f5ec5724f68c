package arm

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFilter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want []clause
	}{
		{"", nil},
		{"  ", nil},
		{"atScope()", []clause{{name: "atscope", call: true}}},
		{" ATSCOPE ( ) ", []clause{{name: "atscope", call: true}}},
		{"principalId eq 'x'", []clause{{name: "principalid", value: "x"}}},
		{"principalId  EQ\t'x' AND assignedTo( 'y' )", []clause{{name: "principalid", value: "x"}, {name: "assignedto", value: "y", call: true}}},
		{"roleName eq 'it''s and eq'", []clause{{name: "rolename", value: "it's and eq"}}},
		{"a eq''", []clause{{name: "a"}}},
	} {
		got, err := parseFilter(tt.text, "")
		if err != nil {
			t.Errorf("parseFilter(%q): %v", tt.text, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(clause{})); diff != "" {
			t.Errorf("parseFilter(%q) (-want +got):\n%s", tt.text, diff)
		}
	}
	for _, text := range []string{
		"x", "x()y", "x( ", "x('", "x('a'", "x eq", "x eq y", "x ne 'y'", "x eq 'y", "x eq 'y' and", "x eq 'y' or z()", "and", "and x()",
		"x() and and y()", "'x'", "(x())", "x eq 'y''", "1 eq 'y'",
	} {
		if got, err := parseFilter(text, "this was expected"); err == nil || !strings.Contains(err.Error(), "this was expected") {
			t.Errorf("parseFilter(%q) = %v, %v, want an error with what there is", text, got, err)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"atScope() and principalId eq 'x'", "assignedTo('it''s')", "a eq 'b' AND c()", "'", "(((", "a eq ''''"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		clauses, err := parseFilter(s, "")
		if err != nil {
			return
		}
		var again []string
		for _, c := range clauses {
			value := "'" + strings.ReplaceAll(c.value, "'", "''") + "'"
			if c.call {
				again = append(again, c.name+"("+value+")")
			} else {
				again = append(again, c.name+" eq "+value)
			}
		}
		got, err := parseFilter(strings.Join(again, " and "), "")
		if err != nil {
			t.Fatalf("%q reads as %v, which written again does not read: %v", s, clauses, err)
		}
		if diff := cmp.Diff(clauses, got, cmp.AllowUnexported(clause{})); diff != "" {
			t.Errorf("%q, written again, is another filter (-first +again):\n%s", s, diff)
		}
	})
}
