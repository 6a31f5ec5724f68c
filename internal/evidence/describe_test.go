package evidence

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
)

func TestParseDescription(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Evidence
	}{
		{"door:imds unix:uid:0 grade:kernel", Evidence{Door: "imds", Selectors: []Selector{"unix:uid:0"}, Grade: GradeKernel}},
		{"door:tap grade:none", Evidence{Door: "tap"}},
		{`door:imds "unix:path:/tmp/x unix:uid:0 grade:kernel" grade:after-the-fact`,
			Evidence{Door: "imds", Selectors: []Selector{"unix:path:/tmp/x unix:uid:0 grade:kernel"}, Grade: GradeAfter}},
		{`"door:a b" "unix:path:/caf\u00e9" grade:secret`, Evidence{Door: "a b", Selectors: []Selector{"unix:path:/café"}, Grade: GradeSecret}},
	} {
		got, err := ParseDescription(tt.in)
		if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
			t.Errorf("ParseDescription(%s): %v (-want +got)\n%s", tt.in, err, diff)
		}
		if back := got.String(); back != tt.in {
			t.Errorf("ParseDescription(%s) prints %s", tt.in, back)
		}
	}
	for _, s := range []string{
		"", "door:x", "grade:kernel", "door:x grade:kernel unix:uid:0", "unix:uid:0 grade:kernel", "door:x grade:unknown", "door:x  grade:none",
		"door:x k8s:ns:a grade:none", `door:x "unix:uid:0 grade:none`, `door:x "unix:uid:0"grade:none`, `door:x "\q" grade:none`, `door:x 'a' grade:none`,
		"door:x " + strings.Repeat("unix:uid:0 ", 7000) + "grade:none",
	} {
		if got, err := ParseDescription(s); !problem.Is(err, problem.Invalid) {
			t.Errorf("ParseDescription(%.60s) = %+v, %v, want an error", s, got, err)
		}
	}
}

// FuzzParseDescription: what was read prints as what reads the same, and what
// was printed is read as it was, however an executable is named.
func FuzzParseDescription(f *testing.F) {
	f.Add("door:imds unix:uid:0 grade:kernel", "imds", "unix:path:/tmp/x unix:uid:0 grade:kernel")
	f.Add(`"door:a b" "unix:path:/caf\u00e9" grade:secret`, "", "unix:path:/\u00e9\"")
	f.Add(`door:x "unix:path:/a\"b" grade:none`, "d", "systemd:id:x.scope")
	f.Fuzz(func(t *testing.T, s, door, sel string) {
		if ev, err := ParseDescription(s); err == nil {
			again, err := ParseDescription(ev.String())
			if err != nil || again.String() != ev.String() {
				t.Errorf("%q reads as %s, which reads as %s, %v", s, ev, again, err)
			}
		}
		one, err := Parse(sel)
		if err != nil || !one.described() || strings.ToValidUTF8(door, "") != door {
			return
		}
		ev := Evidence{Door: door, Selectors: []Selector{one}, Grade: GradeAfter}
		if len(ev.String()) > maxDescription {
			return
		}
		got, err := ParseDescription(ev.String())
		if diff := cmp.Diff(ev, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", ev, err, diff)
		}
	})
}

func TestWarnings(t *testing.T) {
	for _, tt := range []struct {
		selectors []Selector
		want      string // "" is none
	}{
		{[]Selector{"unix:sha256:aa"}, "All selectors are about"},
		{[]Selector{"unix:path:/usr/bin/python3"}, "is an interpreter"},
		{[]Selector{"unix:path:/usr/bin/python3.11", "unix:sha256:aa"}, "is an interpreter"},
		{[]Selector{"unix:path:/opt/node/bin/node"}, "is an interpreter"},
		{[]Selector{"unix:path:/bin/sh"}, "is an interpreter"},
		{[]Selector{"unix:path:/usr/bin/shop"}, ""}, // begins like one
		{[]Selector{"unix:path:/usr/bin/javac"}, ""},
		{[]Selector{"unix:sha256:aa", "systemd:id:shop.service"}, ""},
		{[]Selector{"unix:path:/usr/bin/python3", "unix:uid:1000"}, ""},
		{[]Selector{"systemd:id:shop.service"}, ""},
		{nil, ""},
	} {
		got := strings.Join(Rule{Selectors: tt.selectors}.Warnings(), " ")
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("a rule with %v warns %q, want %q", tt.selectors, got, tt.want)
		}
	}
}
