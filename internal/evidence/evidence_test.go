package evidence

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in, says string // says "" means taken
	}{
		{"unix:uid:1000", ""},
		{"unix:path:/usr/bin/my app", ""}, // paths have spaces
		{"unix:path:/srv/caf\u00e9", ""},
		{"systemd:id:nginx.service", ""},
		{"container:image:alpine:3", ""},
		{"vm:name:web1", ""},
		{"unix:uid:", "a user id was expected"},
		{"unix:uid", "begins with none of unix:uid:"},
		{"UNIX:uid:1", "begins with none of"}, // selectors have one spelling
		{"k8s:ns:default", "begins with none of"},
		{"", "begins with none of"},
		{"unix:path:/a\nunix:uid:0", "control character"},
		{"unix:path:/a\x00", "control character"},
		{"unix:path:/\xff", "not UTF-8"},
		{"unix:path:/" + strings.Repeat("a", 512), "over 512"},
	} {
		got, err := Parse(tt.in)
		if tt.says == "" && (err != nil || string(got) != tt.in) {
			t.Errorf("Parse(%q) = %q, %v", tt.in, got, err)
		}
		if tt.says != "" && (!problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), tt.says) || got != "") {
			t.Errorf("Parse(%.40q) = %q, %v, want %q", tt.in, got, err, tt.says)
		}
	}
}

func TestMatches(t *testing.T) {
	e := Evidence{Selectors: []Selector{"unix:gid:5", "unix:path:/bin/a", "unix:uid:1000"}}
	for _, tt := range []struct {
		required []Selector
		want     bool
	}{
		{nil, true},
		{[]Selector{"unix:uid:1000"}, true},
		{[]Selector{"unix:uid:1000", "unix:gid:5"}, true},
		{[]Selector{"unix:uid:1000", "unix:gid:6"}, false}, // all, not any
		{[]Selector{"unix:uid:100"}, false},                // whole, not a prefix
		{[]Selector{"unix:path:/BIN/a"}, false},
		{[]Selector{""}, false},
	} {
		if got := e.Matches(tt.required); got != tt.want {
			t.Errorf("Matches(%q) = %v, want %v", tt.required, got, tt.want)
		}
	}
	if (Evidence{}).Matches([]Selector{"unix:uid:0"}) {
		t.Error("a caller of whom nothing is known matches a requirement")
	}
}

func TestString(t *testing.T) {
	for _, tt := range []struct {
		e    Evidence
		want string
	}{
		{Evidence{Door: "imds", Selectors: []Selector{"unix:uid:0"}, Grade: GradeKernel}, "door:imds unix:uid:0 grade:kernel"},
		{Evidence{Door: "tap"}, "door:tap grade:none"},
		{Evidence{Door: "imds", Selectors: []Selector{"unix:path:/tmp/x unix:uid:0 grade:kernel"}, Grade: GradeAfter},
			`door:imds "unix:path:/tmp/x unix:uid:0 grade:kernel" grade:after-the-fact`},
		{Evidence{Door: "imds", Selectors: []Selector{"unix:path:/tmp/\"\n"}}, `door:imds "unix:path:/tmp/\"\n" grade:none`},
		{Evidence{Door: "run", Start: "not said", Grade: GradeSecret}, "door:run grade:secret"},
		{Evidence{Door: "run", Grade: 99}, "door:run grade:unknown"},
	} {
		if got := tt.e.String(); got != tt.want {
			t.Errorf("String() = %s, want %s", got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("unix:uid:1000")
	f.Add("unix:path:/a b\"")
	f.Add("vm:")
	f.Fuzz(func(t *testing.T, s string) {
		sel, err := Parse(s)
		if err != nil {
			if sel != "" || !problem.Is(err, problem.Invalid) {
				t.Fatalf("Parse(%q) = %q, %v", s, sel, err)
			}
			return
		}
		e := Evidence{Door: "d", Selectors: []Selector{sel}}
		if string(sel) != s || !e.Matches([]Selector{sel}) {
			t.Errorf("Parse(%q) = %q, or it does not match itself", s, sel)
		}
		// Whatever it is, it is one word of the description.
		if text := e.String(); strings.Contains(s, " ") && !strings.HasPrefix(text, `door:d "`) {
			t.Errorf("%q is described as %s, which reads as several words", s, text)
		}
	})
}
