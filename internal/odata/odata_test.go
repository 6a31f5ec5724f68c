package odata

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                 "",
		" \t":                              "",
		"name eq 'vm1'":                    "name eq 'vm1'",
		"name EQ 'it''s'":                  "name eq 'it''s'",
		"'vm1' eq name":                    "name eq 'vm1'",
		"5 lt size":                        "size gt 5",
		"a eq 1 or b eq 2 and c eq 3":      "a eq 1 or (b eq 2 and c eq 3)",
		"(a eq 1 or b eq 2) and c eq 3":    "(a eq 1 or b eq 2) and c eq 3",
		"((a eq 1))":                       "a eq 1",
		"not a eq 1 and b eq 2":            "not (a eq 1) and b eq 2",
		"NOT(a eq 1 and b eq 2)":           "not (a eq 1 and b eq 2)",
		"not not a eq null":                "not (not (a eq null))",
		"atScope()":                        "atScope()",
		"atScope() and assignedTo('x')":    "atScope() and assignedTo('x')",
		"startswith(tagName,'a') eq true":  "startswith(tagName, 'a')",
		"startswith(tagName,'a') eq false": "not (startswith(tagName, 'a'))",
		"substringof('a b', identity/principalId)":        "substringof('a b', identity/principalId)",
		"id in ('a','b')":                                 "id in ('a', 'b')",
		"x eq aaaaaaaa-0000-4000-8000-00000000000a":       "x eq aaaaaaaa-0000-4000-8000-00000000000a",
		"x eq guid'aaaaaaaa-0000-4000-8000-00000000000a'": "x eq aaaaaaaa-0000-4000-8000-00000000000a",
		"t ge datetime'2026-01-31T12:00:00Z'":             "t ge 2026-01-31T12:00:00Z",
		"t le 2026-01-31T12:00:00.5+01:00":                "t le 2026-01-31T12:00:00.5+01:00",
		"a eq TRUE":                                       "a eq true",
		"a eq -1.5":                                       "a eq -1.5",
	} {
		f, err := Parse(in)
		if err != nil || f.String() != want {
			t.Errorf("Parse(%s) = %s, %v, want %s", in, f, err, want)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"name":                     "ends at character 5, where one of eq",
		"name eq":                  "ends at character 8, where a value in quotes",
		"name eq vm1":              "has 'vm1' at character 9, where a value in quotes",
		"name like 'a'":            "has 'like' at character 6, where one of eq",
		"name eq 'a":               "begins at character 9 and does not end",
		"name eq 'a' and":          "ends at character 16",
		"name eq 'a' 'b'":          "has ''b'' at character 13, where and, or, or the end",
		"name eq 'a' or or b eq 1": "has 'b' at character 19",
		"(name eq 'a'":             "ends at character 13, where and, or, or ')'",
		"name eq 'a')":             "has ')' at character 12",
		"'a' eq 'b'":               "compares two values at character 1",
		"'a' eq":                   "where a property",
		"f(":                       "where a value",
		"f('a' 'b')":               "where ',' or ')'",
		"f('a') eq 'b'":            "where true or false",
		"x in ()":                  "an empty list",
		"x in (y)":                 "where a value in quotes",
		"x in 'y'":                 "where '('",
		"not":                      "where a property",
		"a;b eq 1":                 "has 'a;b' at character 1",
		"a eq datetime'yesterday'": "which is no time",
		"a eq guid'1'":             "which is no guid",
		"\u212aey eq 1":            "at character 1",
		strings.Repeat("(", 40) + "a eq 1" + strings.Repeat(")", 40): "nested more than 32 deep",
		strings.Repeat("not ", 40) + "a eq 1":                        "nested more than 32 deep",
		strings.Repeat("a eq 1 or ", 100) + "a eq 1":                 "more than 100 terms",
		strings.Repeat(" ", 5000) + "a":                              "5001 bytes long",
	} {
		f, err := Parse(in)
		if !problem.Is(err, problem.BadFilter) || !strings.Contains(err.Error(), want) || !f.IsZero() {
			t.Errorf("Parse(%.60s) = %s, %v, want an error with %q", in, f, err, want)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	holds := func(t Term) bool { return t.Name == "yes" }
	for in, want := range map[string]bool{
		"": true, "yes()": true, "no()": false,
		"yes() and no()": false, "yes() and yes()": true, "yes() or no()": true, "no() or no()": false,
		"not no()": true, "not yes()": false, "no() and no() or yes()": true, "no() and (no() or yes())": false,
	} {
		f, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Match(holds); got != want {
			t.Errorf("%s matches: %v, want %v", in, got, want)
		}
	}
}

func TestTermsAndNeeded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in            string
		terms, needed int
		ok            bool
	}{
		{"", 0, 0, true},
		{"a eq 1", 1, 1, true},
		{"a eq 1 and (b eq 2 and c eq 3)", 3, 3, true},
		{"a eq 1 and (b eq 2 or c eq 3)", 0, 1, false},
		{"a eq 1 or b eq 2", 0, 0, false},
		{"not a eq 1 and b eq 2", 0, 1, false},
	} {
		f, err := Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		terms, ok := f.Terms()
		if len(terms) != tt.terms || ok != tt.ok || len(f.Needed()) != tt.needed {
			t.Errorf("%s: terms %v %v, needed %v, want %d %v, %d", tt.in, terms, ok, f.Needed(), tt.terms, tt.ok, tt.needed)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	known := func(t Term) bool { return t.Is("NAME", Eq) || t.Calls("startswith", Property, Text) }
	for in, want := range map[string]string{
		"": "",
		"name eq 'a' and not startswith(name, 'b')":   "",
		"name eq 'a' or name ne 'b'":                  "has 'name ne 'b'', which cannot be asked here; names can.",
		"not (name eq 'a' and startswith('b', name))": "startswith('b', name)",
		"startswith(name)":                            "startswith(name)",
	} {
		f, err := Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Check("names", known)
		if (err == nil) != (want == "") || err != nil && (!problem.Is(err, problem.BadFilter) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"name eq 'it''s' and not (a in (1, null) or startswith(b/c, 'x') eq false)", "t ge datetime'2026-01-31T12:00:00Z'",
		"atScope() or 'a' ne b", "((", "x eq aaaaaaaa-0000-4000-8000-00000000000a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			if !problem.Is(err, problem.BadFilter) {
				t.Errorf("Parse(%q): %v, want a bad filter", s, err)
			}
			return
		}
		text := a.String()
		if len(text) > maxLen || strings.Count(text, "(") > maxDepth {
			return // parentheses that were left out, and their like, count when printed
		}
		b, err := Parse(text)
		if err != nil || b.String() != text {
			t.Errorf("Parse(%q) prints %q, which parses as %q, %v", s, text, b, err)
		}
		seen := 0
		a.Match(func(Term) bool { seen++; return seen%2 == 0 })
		if terms, ok := a.Terms(); ok && len(terms) != len(a.Needed()) {
			t.Errorf("%q: terms %v, needed %v", s, terms, a.Needed())
		}
	})
}
