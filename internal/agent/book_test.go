package agent

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

const (
	site   = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Web/sites/shop"
	shared = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shared"
	kv     = "https://vault.azure.net"
)

func bookOf(p fleetapi.Placements) *book { return newBook(p, slog.New(slog.DiscardHandler)) }

// The index finds what a look at every placement would.
func TestIndexFindsWhatASearchFinds(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func() string { return fmt.Sprintf("unix:uid:%d", rnd.IntN(8)) }
	for round := range 2000 {
		var p fleetapi.Placements
		for i := range rnd.IntN(12) {
			pl := fleetapi.Placement{Name: fmt.Sprint("p", i), Door: fmt.Sprint("d", rnd.IntN(2)), Resource: fmt.Sprint("/subscriptions/", rnd.IntN(3))}
			for range rnd.IntN(4) {
				pl.Selectors = append(pl.Selectors, word())
			}
			p.Placements = append(p.Placements, pl)
		}
		s := sought{ev: evidence.Evidence{Door: "d0"}}
		for range rnd.IntN(6) {
			s.ev.Selectors = append(s.ev.Selectors, evidence.Selector(word()))
		}
		if rnd.IntN(3) == 0 {
			s.resource = "/SUBSCRIPTIONS/1"
		}
		got, err := bookOf(p).find(s)
		want, tied := search(p.Placements, s)
		switch {
		case want == nil || tied:
			if !problem.Is(err, problem.CallerRefused) {
				t.Fatalf("round %d: find = %v, %v, want a refusal (tied: %v)", round, got, err, tied)
			}
		case err != nil || len(got.Selectors) != len(want.Selectors) || !sameResource(got.Resource, want.Resource):
			t.Fatalf("round %d: find = %+v, %v, want %+v", round, got, err, want)
		}
	}
}

// search is find as it reads: every placement, one after the other.
func search(all []fleetapi.Placement, s sought) (best *fleetapi.Placement, tied bool) {
	for i := range all {
		p := &all[i]
		if p.Door != s.ev.Door || s.resource != "" && !sameResource(p.Resource, s.resource) || !s.ev.Matches(selectors(p.Selectors)) {
			continue
		}
		switch {
		case best == nil || len(p.Selectors) > len(best.Selectors):
			best, tied = p, false
		case len(p.Selectors) == len(best.Selectors) && !sameResource(p.Resource, best.Resource):
			tied = true
		}
	}
	return best, tied
}

// Rules found by index say what all of them would.
func TestIndexJudgesAsAllRulesDo(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(3, 4))
	word := func() string { return fmt.Sprintf("unix:uid:%d", rnd.IntN(6)) }
	var allowed, would int
	for round := range 5000 {
		var p fleetapi.Placements
		for i := range rnd.IntN(8) {
			r := fleetapi.CallerRule{Resource: site, Name: fmt.Sprint("r", i), Selectors: []string{word()}, Mode: []string{"audit", "enforce"}[rnd.IntN(2)]}
			for range rnd.IntN(3) {
				r.Selectors = append(r.Selectors, word())
			}
			r.Identity = []string{"", site, shared}[rnd.IntN(3)]
			r.Grade = []string{"", "kernel", "tpm"}[rnd.IntN(3)]
			p.Rules = append(p.Rules, r)
		}
		ev := evidence.Evidence{Door: "d", Grade: evidence.Grade(2 + rnd.IntN(2))}
		for range rnd.IntN(6) {
			ev.Selectors = append(ev.Selectors, evidence.Selector(word()))
		}
		want := evidence.Want{Audience: kv, Named: rnd.IntN(2) == 0, Identity: []string{"", site, shared}[rnd.IntN(3)]}
		b := bookOf(p)
		got := b.rules[resourceKey(site)].judge(ev, want)
		all := evidence.Verdict{Allowed: true}
		if r := b.rules[resourceKey(site)]; r != nil {
			all = evidence.Judge(r.list, ev, want)
		}
		// Which of several equally good rules is named is the order's matter.
		all.Rule, got.Rule = "", ""
		if !cmp.Equal(all, got) {
			t.Fatalf("round %d: judged by index %+v, by all rules %+v\nrules %+v\nevidence %+v\nwant %+v", round, got, all, p.Rules, ev, want)
		}
		if got.Allowed {
			allowed++
		}
		if got.Would != "" {
			would++
		}
	}
	if allowed < 500 || allowed > 4500 || would < 100 {
		t.Errorf("of 5000 rounds %d allowed and %d would be refused: the rounds try too little", allowed, would)
	}
}

func TestRulesThatCannotBeReadRefuse(t *testing.T) {
	t.Parallel()
	good := fleetapi.CallerRule{Resource: site, Name: "good", Selectors: []string{"unix:uid:1"}, Mode: fleetapi.ModeEnforce}
	ev := evidence.Evidence{Door: "d", Selectors: []evidence.Selector{"unix:uid:1"}, Grade: evidence.GradeKernel}
	for name, tt := range map[string]struct {
		change func(*fleetapi.CallerRule)
		says   string // "" means that the good rule beside it still counts
		alone  string // what the rule says by itself
	}{
		"good":                   {func(*fleetapi.CallerRule) {}, "", ""},
		"unknown mode":           {func(r *fleetapi.CallerRule) { r.Mode = "warn" }, "", "no caller rule"},
		"no mode":                {func(r *fleetapi.CallerRule) { r.Mode = "" }, "", "no caller rule"},
		"mode in another case":   {func(r *fleetapi.CallerRule) { r.Mode = "Audit" }, "", "no caller rule"},
		"unknown grade":          {func(r *fleetapi.CallerRule) { r.Grade = "tpm" }, "", "no caller rule"},
		"no selector":            {func(r *fleetapi.CallerRule) { r.Selectors = nil }, `"new": it has no selector`, "cannot be read"},
		"unknown selector":       {func(r *fleetapi.CallerRule) { r.Selectors = []string{"k8s:ns:shop"} }, `"k8s:ns:shop" begins with none`, "cannot be read"},
		"no identity of ours":    {func(r *fleetapi.CallerRule) { r.Identity = "shared" }, "identity is not a resource ID", "cannot be read"},
		"broken in audit mode":   {func(r *fleetapi.CallerRule) { r.Selectors, r.Mode = nil, fleetapi.ModeAudit }, "no selector", "cannot be read"},
		"resource has no case":   {func(r *fleetapi.CallerRule) { r.Resource = strings.ToUpper(site) + "/" }, "", ""},
		"audit of unknown grade": {func(r *fleetapi.CallerRule) { r.Grade, r.Mode = "tpm", fleetapi.ModeAudit }, "", ""},
	} {
		r := good
		r.Name = "new"
		tt.change(&r)
		both := bookOf(fleetapi.Placements{Rules: []fleetapi.CallerRule{good, r}}).rules[resourceKey(site)].judge(ev, evidence.Want{Audience: kv})
		if both.Allowed != (tt.says == "") || !strings.Contains(both.Reason, tt.says) {
			t.Errorf("%s: judged with a good rule = %+v, want %q", name, both, tt.says)
		}
		alone := bookOf(fleetapi.Placements{Rules: []fleetapi.CallerRule{r}}).rules[resourceKey(site)].judge(ev, evidence.Want{Audience: kv})
		if alone.Allowed != (tt.alone == "") || !strings.Contains(alone.Reason, tt.alone) {
			t.Errorf("%s: judged alone = %+v, want %q", name, alone, tt.alone)
		}
		if other := bookOf(fleetapi.Placements{Rules: []fleetapi.CallerRule{r}}).rules[resourceKey("/subscriptions/other")].judge(ev, evidence.Want{}); !other.Allowed {
			t.Errorf("%s: another resource is refused: %+v", name, other)
		}
	}
}

func TestSeenBeginsAnew(t *testing.T) {
	t.Parallel()
	x := newSeen()
	var firsts []bool
	for _, s := range []string{"a", "a", "b", "a"} {
		firsts = append(firsts, x.first(s))
	}
	if diff := cmp.Diff([]bool{true, false, true, false}, firsts); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	for i := range 3 * maxSeen {
		x.first(fmt.Sprint(i))
	}
	if len(x.m) > maxSeen {
		t.Errorf("%d things are remembered, want %d at most", len(x.m), maxSeen)
	}
}

// FuzzCallerRule: whatever a rule is, it opens nothing that it does not name.
func FuzzCallerRule(f *testing.F) {
	f.Add("unix:uid:1", "", "", "", "enforce", site)
	f.Add("unix:uid:2", shared, "kernel", kv, "audit", site)
	f.Add("", "x", "tpm", "", "", "")
	f.Fuzz(func(t *testing.T, selector, identity, grade, audience, mode, on string) {
		r := fleetapi.CallerRule{Resource: on, Name: "r", Selectors: []string{selector}, Identity: identity, Grade: grade, Audiences: []string{audience}, Mode: mode}
		ev := evidence.Evidence{Selectors: []evidence.Selector{"unix:uid:1"}, Grade: evidence.GradeAfter}
		v := bookOf(fleetapi.Placements{Rules: []fleetapi.CallerRule{r}}).rules[resourceKey(on)].judge(ev, evidence.Want{Audience: kv})
		if v.Allowed && mode != fleetapi.ModeAudit && selector != "unix:uid:1" {
			t.Errorf("%+v allows a caller that it does not name", r)
		}
		if v.Allowed == (v.Reason != "") {
			t.Errorf("judge = %+v", v)
		}
	})
}

// large is a host with as much as one may hold.
func large() (*book, evidence.Evidence) {
	var p fleetapi.Placements
	for i := range 999 {
		p.Placements = append(p.Placements, fleetapi.Placement{Name: fmt.Sprint("p", i), Door: "host", Resource: fmt.Sprint("/subscriptions/", i),
			Selectors: []string{fmt.Sprintf("systemd:id:unit-%d.service", i), "unix:uid:1000"}})
	}
	p.Placements = append(p.Placements, fleetapi.Placement{Name: "shop", Door: "host", Resource: site, Selectors: []string{"systemd:id:shop.service", "unix:uid:1000"}})
	for i := range 200 {
		p.Rules = append(p.Rules, fleetapi.CallerRule{Resource: site, Name: fmt.Sprint("r", i), Selectors: []string{fmt.Sprintf("systemd:id:unit-%d.service", i)}, Mode: fleetapi.ModeEnforce})
	}
	p.Rules[199].Selectors = []string{"systemd:id:shop.service"}
	return bookOf(p), evidence.Evidence{Door: "host", Grade: evidence.GradeKernel, Selectors: selectors([]string{
		"cgroup:/system.slice/shop.service", "systemd:id:shop.service", "unix:gid:1000", "unix:group:shop", "unix:path:/usr/bin/shop",
		"unix:sha256:" + strings.Repeat("0", 64), "unix:supplementary_gid:4", "unix:supplementary_group:adm", "unix:uid:1000", "unix:user:shop",
	})}
}

func TestDecideMakesNoGarbage(t *testing.T) {
	b, ev := large()
	want := evidence.Want{Audience: kv}
	if d, err := b.decide(sought{ev: ev}, want); err != nil || d.Rule != "r199" || d.Name != "shop" {
		t.Fatalf("decide = %+v, %v", d, err)
	}
	if n := testing.AllocsPerRun(10, func() {
		if _, err := b.decide(sought{ev: ev}, want); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("a decision allocates %v times, want 2 at most", n)
	}
}

func BenchmarkDecide(b *testing.B) {
	book, ev := large()
	for b.Loop() {
		if _, err := book.decide(sought{ev: ev}, evidence.Want{Audience: kv}); err != nil {
			b.Fatal(err)
		}
	}
}

// How a caller was found before is good in the same book, and in no other:
// another may have moved, or taken away, its placement.
func TestFoundBeforeIsFoundInTheSameBookOnly(t *testing.T) {
	ev := evidence.Evidence{Door: "d", Selectors: []evidence.Selector{"unix:uid:1"}}
	const a, b = "/subscriptions/s/resourceGroups/g/providers/x/y/a", "/subscriptions/s/resourceGroups/g/providers/x/y/b"
	at := func(resource string) *book {
		return bookOf(fleetapi.Placements{Placements: []fleetapi.Placement{{Name: "p", Door: "d", Selectors: []string{"unix:uid:1"}, Resource: resource}}})
	}
	first := at(a)
	p, err := first.find(sought{ev: ev})
	if err != nil {
		t.Fatal(err)
	}
	again := sought{ev: ev, was: &found{placed: p, in: first}}
	if got, err := first.find(again); err != nil || got != p {
		t.Errorf("in the same book: %v, %v", got, err)
	}
	if got, err := at(b).find(again); err != nil || got.Resource != b {
		t.Errorf("in a book where it moved: %v, %v", got, err)
	}
	if got, err := bookOf(fleetapi.Placements{}).find(again); err == nil {
		t.Errorf("in a book without it: %v", got)
	}
}
