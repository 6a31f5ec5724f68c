package evidence

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	web    = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web1"
	shared = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shared"
	kv     = "https://vault.azure.net"
)

func TestDecide(t *testing.T) {
	shop := Evidence{Door: "host", Selectors: []Selector{"systemd:id:shop.service", "unix:uid:1000"}, Grade: GradeKernel}
	unit := Rule{Name: "unit", Selectors: []Selector{"systemd:id:shop.service"}, Enforce: true}
	both := Rule{Name: "both", Selectors: []Selector{"systemd:id:shop.service", "unix:uid:1000"}, Identity: shared, Enforce: true}
	root := Rule{Name: "root", Selectors: []Selector{"unix:uid:0"}, Enforce: true}
	audit := func(r Rule) Rule { r.Enforce = false; return r }
	with := func(r Rule, f func(*Rule)) Rule { f(&r); return r }
	for _, tt := range []struct {
		name  string
		rules []Rule
		ev    Evidence
		want  Want
		is    Verdict
	}{
		{"no rules", nil, shop, Want{Audience: kv}, Verdict{Allowed: true}},
		{"one that matches", []Rule{unit}, shop, Want{Audience: kv}, Verdict{Allowed: true, Rule: "unit"}},
		{"closed by default", []Rule{root}, shop, Want{Audience: kv}, Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"root", "the caller is not unix:uid:0"}}}},
		{"the door alone", []Rule{unit}, Evidence{Door: "host"}, Want{}, Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"unit", "the caller is not systemd:id:shop.service"}}}},
		{"the fuller one gives its identity", []Rule{unit, both}, shop, Want{}, Verdict{Allowed: true, Rule: "both", Identity: shared}},
		{"whoever names one is not given another", []Rule{unit, both}, shop, Want{Named: true, Identity: web}, Verdict{Allowed: true, Rule: "unit", Misses: []Miss{{"both", "it gives another identity"}}}},
		{"named and not known yet", []Rule{both}, shop, Want{Named: true}, Verdict{Allowed: true, Rule: "both"}},
		{"named in another case", []Rule{both}, shop, Want{Named: true, Identity: strings.ToUpper(shared)}, Verdict{Allowed: true, Rule: "both"}},
		{"another identity", []Rule{both}, shop, Want{Named: true, Identity: web}, Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"both", "it gives another identity"}}}},
		{
			"two identities, equally good", []Rule{with(unit, func(r *Rule) { r.Identity = web }), {Name: "uid", Selectors: []Selector{"unix:uid:1000"}, Identity: shared, Enforce: true}}, shop, Want{},
			Verdict{Reason: "several caller rules match equally well and give different identities: name one in the request"},
		},
		{
			"audience", []Rule{with(unit, func(r *Rule) { r.Audiences = []string{"api://shop"} })}, shop, Want{Audience: kv},
			Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"unit", "it is not for this audience"}}},
		},
		{"audience with a slash", []Rule{with(unit, func(r *Rule) { r.Audiences = []string{kv} })}, shop, Want{Audience: "https://Vault.azure.net/"}, Verdict{Allowed: true, Rule: "unit"}},
		{
			"grade", []Rule{with(unit, func(r *Rule) { r.Grade = GradeKernel })}, with2(shop, func(e *Evidence) { e.Grade = GradeAfter }), Want{},
			Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"unit", "it asks for evidence of grade kernel, and this is after-the-fact"}}},
		},
		{"audit alone opens", []Rule{audit(root)}, shop, Want{}, Verdict{Allowed: true, Would: "no caller rule of the resource allows it", Misses: []Miss{{"root", "the caller is not unix:uid:0"}}}},
		{"audit that would allow", []Rule{audit(unit)}, shop, Want{}, Verdict{Allowed: true}},
		{"audit does not allow what is refused", []Rule{root, audit(unit)}, shop, Want{}, Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"root", "the caller is not unix:uid:0"}}}},
		{"audit gives no identity", []Rule{audit(both)}, shop, Want{}, Verdict{Allowed: true}},
		{"a rule without selectors is no rule for everybody", []Rule{{Name: "all", Enforce: true}}, shop, Want{}, Verdict{Reason: "no caller rule of the resource allows it", Misses: []Miss{{"all", "it has no selector"}}}},
	} {
		if diff := cmp.Diff(tt.is, Decide(tt.rules, tt.ev, tt.want)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
		tt.is.Misses = nil
		if diff := cmp.Diff(tt.is, Judge(tt.rules, tt.ev, tt.want)); diff != "" {
			t.Errorf("Judge: %s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func with2(e Evidence, f func(*Evidence)) Evidence { f(&e); return e }

// An interpreter is never identified by its own file.
func TestInterpreterIsNotItsScript(t *testing.T) {
	python := Evidence{Selectors: []Selector{"systemd:id:shop.service", "unix:path:/usr/bin/python3", "unix:sha256:aa"}, Interpreter: true}
	for _, tt := range []struct {
		required []Selector
		want     bool
	}{
		{[]Selector{"unix:sha256:aa"}, false},
		{[]Selector{"unix:path:/usr/bin/python3", "unix:sha256:aa"}, false},
		{[]Selector{"unix:sha256:aa", "systemd:id:shop.service"}, true},
		{nil, true},
	} {
		if got := python.Matches(tt.required); got != tt.want {
			t.Errorf("an interpreter matches %v = %v, want %v (%s)", tt.required, got, tt.want, python.Lacks(tt.required))
		}
	}
	python.Interpreter = false
	if !python.Matches([]Selector{"unix:sha256:aa"}) {
		t.Error("a program is not identified by its digest")
	}
}

func TestPassingFactsAreNotInTheDescription(t *testing.T) {
	e := Evidence{Door: "host", Grade: GradeKernel, Process: Process{PID: 77, Executable: "/x"}, Selectors: []Selector{
		"cgroup:/system.slice/shop.service", "container:id:abc", "container:label:a:b", "container:name:shop", "systemd:id:session-4.scope", "systemd:id:shop.service", "unix:supplementary_gid:7",
	}}
	if got, want := e.String(), "door:host container:name:shop systemd:id:shop.service grade:kernel"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

func TestParseGrade(t *testing.T) {
	for _, g := range []Grade{GradeNone, GradeSecret, GradeAfter, GradeKernel} {
		if got, err := ParseGrade(g.String()); err != nil || got != g {
			t.Errorf("ParseGrade(%s) = %v, %v", g, got, err)
		}
	}
	for _, s := range []string{"", "Kernel", "unknown"} {
		if got, err := ParseGrade(s); err == nil {
			t.Errorf("ParseGrade(%q) = %v, want an error", s, got)
		}
	}
}

// FuzzDecide: whatever the rules, what they refuse has a reason, what they
// allow has none, and rules in audit mode change no outcome.
func FuzzDecide(f *testing.F) {
	f.Add("unix:uid:1", "unix:uid:2", "https://a", true, false, 3)
	f.Fuzz(func(t *testing.T, a, b, audience string, enforce, named bool, grade int) {
		ev := Evidence{Selectors: []Selector{Selector(a)}, Grade: Grade(grade & 3)}
		rules := []Rule{
			{Name: "1", Selectors: []Selector{Selector(b)}, Enforce: enforce, Audiences: []string{audience}},
			{Name: "2", Selectors: []Selector{Selector(a)}, Grade: Grade(grade >> 2 & 3), Identity: b},
		}
		want := Want{Audience: audience, Named: named, Identity: a}
		v := Decide(rules, ev, want)
		quick := v
		quick.Misses = nil
		if got := Judge(rules, ev, want); !cmp.Equal(got, quick) {
			t.Errorf("Judge = %+v, and Decide = %+v", got, v)
		}
		if v.Allowed == (v.Reason != "") {
			t.Errorf("Decide = %+v", v)
		}
		if bare := Decide(rules[:1], ev, want); bare.Allowed != v.Allowed || bare.Identity != v.Identity {
			t.Errorf("a rule in audit mode made %+v of %+v", v, bare)
		}
	})
}

// A request is judged by all rules of its resource: that must cost no text for
// each rule that is another's.
func TestJudgeMakesNoGarbage(t *testing.T) {
	ev := Evidence{Selectors: []Selector{"systemd:id:shop.service", "unix:uid:1000"}, Grade: GradeKernel}
	rules := make([]Rule, 200)
	for i := range rules {
		rules[i] = Rule{Name: "r", Selectors: []Selector{Selector("unix:uid:" + strconv.Itoa(2000+i))}, Enforce: i%2 == 0}
	}
	rules[199] = Rule{Name: "mine", Selectors: []Selector{"unix:uid:1000"}, Enforce: true}
	if n := testing.AllocsPerRun(10, func() { Judge(rules, ev, Want{Audience: kv}) }); n > 0 {
		t.Errorf("judging by 200 rules allocates %v times, want 0", n)
	}
}
