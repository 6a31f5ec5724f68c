package agent

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/agent/caller"
	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/problem"
)

// Explanation says what this agent would decide about a process that runs now,
// and why. Nothing is given, and nothing recorded. That the resource has the
// identity, and the identity a right, the control plane says.
type Explanation struct {
	PID        int    `json:"pid"`
	Executable string `json:"executable"`
	// Interpreter says that the executable alone identifies no program.
	Interpreter bool `json:"interpreter,omitempty"`
	// Doors are the agent's doors, or the one that was asked for. The door
	// "run" stands for a start that this process would ask for.
	Doors []DoorExplanation `json:"doors"`
}

// DoorExplanation is what is decided about a process that comes in by a door.
type DoorExplanation struct {
	Door string `json:"door"`
	// Grade and Selectors are the evidence.
	Grade     string   `json:"grade"`
	Selectors []string `json:"selectors"`
	// Placement is what says that the process is Resource; empty if none does.
	Placement string `json:"placement,omitempty"`
	Resource  string `json:"resource,omitempty"`
	// OtherPlacements are those of the door that do not count, and why. Who is
	// not root is told their number alone, Hidden: they are others' business.
	OtherPlacements []Why `json:"otherPlacements,omitempty"`
	Hidden          int   `json:"hidden,omitempty"`

	Allowed bool `json:"allowed"`
	// Rule is the caller rule that allows it; empty where none is enforced.
	Rule string `json:"rule,omitempty"`
	// Identity is the resource ID of the identity that would be given; empty
	// for the resource's default one.
	Identity string `json:"identity,omitempty"`
	// Reason says why it is refused, Would why rules in audit mode would.
	Reason string `json:"reason,omitempty"`
	Would  string `json:"would,omitempty"`
	// OtherRules are the resource's rules that do not allow it, and why.
	OtherRules []Why `json:"otherRules,omitempty"`
}

// Why says why something does not count.
type Why struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// question is a request for an explanation.
type question struct {
	pid  int
	door string // "": every door
	// workload is the resource that a start would ask to be; empty to be told
	// which may be asked for.
	workload string
	want     evidence.Want
}

// serveExplain answers root, and who runs the process: what a caller is, is
// nobody else's business.
func (a *Agent) serveExplain(w http.ResponseWriter, r *http.Request) error {
	by, err := door.Caller(r.Context())
	if err != nil {
		return &problem.Error{Kind: problem.CallerRefused, Detail: "this caller could not be identified", Err: err}
	}
	q, err := readQuestion(r.URL.RawQuery)
	if err != nil {
		return err
	}
	asker, ok := user(by)
	if !ok || by.Grade != evidence.GradeKernel {
		return problem.Errorf(problem.CallerRefused, "the kernel does not say which user asks")
	}
	out, err := a.explain(q, asker)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(out)
}

func readQuestion(raw string) (q question, err error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, &problem.Error{Kind: problem.Invalid, Detail: "the query string does not parse", Err: err}
	}
	for k, v := range values {
		if !slices.Contains([]string{"pid", "door", "workload", "resource", "identity"}, k) || len(v) > 1 {
			return q, problem.Errorf(problem.Invalid, "pid, door, workload, resource and identity were expected, each once; there is %q", problem.Clip(k))
		}
	}
	if q.pid, err = strconv.Atoi(values.Get("pid")); err != nil || q.pid < 1 {
		return q, problem.Errorf(problem.Invalid, "pid is %q; a process id was expected", problem.Clip(values.Get("pid")))
	}
	q.door, q.workload = values.Get("door"), values.Get("workload")
	q.want.Audience = values.Get("resource")
	if id := values.Get("identity"); id != "" {
		q.want.Named = true
		if strings.HasPrefix(id, "/") { // else a client id, and whose that is the control plane knows
			q.want.Identity = strings.TrimSuffix(id, "/")
		}
	}
	return q, nil
}

// user is the user in a piece of evidence, as a selector.
func user(ev evidence.Evidence) (evidence.Selector, bool) {
	i := slices.IndexFunc(ev.Selectors, func(s evidence.Selector) bool { return strings.HasPrefix(string(s), "unix:uid:") })
	if i < 0 {
		return "", false
	}
	return ev.Selectors[i], true
}

const root evidence.Selector = "unix:uid:0"

func (a *Agent) explain(q question, asker evidence.Selector) (Explanation, error) {
	names := append(a.doorNames(), RunDoor)
	if q.door != "" && !slices.Contains(names, q.door) {
		return Explanation{}, problem.Errorf(problem.Invalid, "there is no door %q; there are: %s", problem.Clip(q.door), strings.Join(names, ", "))
	}
	out := Explanation{PID: q.pid}
	book := a.feed.now()
	for _, name := range names {
		from, here := a.reach(q.pid, name)
		if q.door != "" && q.door != name || q.door == "" && !here {
			continue
		}
		ev, err := a.callers.OfProcess(q.pid, from)
		// Evidence of a process that went, or was exchanged for another's
		// meanwhile, is as little anybody's to see as another's.
		owner, known := user(ev)
		if asker != root && (err != nil || !known || owner != asker) {
			return Explanation{}, problem.Errorf(problem.Denied, "there is no process %d of the user who asks (%s); root may ask about every process", q.pid, asker)
		}
		if err != nil {
			return Explanation{}, &problem.Error{Kind: problem.Invalid, Detail: "there is no process " + strconv.Itoa(q.pid) + " that could be looked at", Err: err}
		}
		s := sought{ev: ev}
		st, as, over := a.inGroup(ev)
		if st != nil { // at the captured address it is its start
			s = st.soughtAs(as)
		}
		if name == RunDoor {
			s.ev.Grade = evidence.GradeSecret // what a start has
			s.resource = q.workload
		}
		out.Executable, out.Interpreter = ev.Process.Executable, ev.Interpreter
		d := book.explain(s, q.want, asker == root)
		if over != nil {
			d.Allowed, d.Reason = false, problem.Of(over).Detail
		}
		if !here {
			d.Allowed, d.Reason = false, "the process cannot come in by this door: it is for a virtual machine or for a container that the process is not in"
		}
		out.Doors = append(out.Doors, d)
	}
	return out, nil
}

// reach says what a door proves of a process that comes in by it, and whether
// it can: nobody but a virtual machine is behind an interface, and a container's
// namespace is entered by its own processes alone.
func (a *Agent) reach(pid int, name string) (from caller.From, can bool) {
	from.Door, from.Unix = name, name == RunDoor
	i := slices.IndexFunc(a.cfg.Doors, func(d DoorConfig) bool { return d.Name == name })
	if i < 0 {
		from.Captured = a.capture != nil && name == a.cfg.Capture.Door
		return from, true
	}
	d := &a.cfg.Doors[i]
	from.Selectors, from.Unix = d.proves(), d.kind() == KindUnix
	switch d.kind() {
	case KindInterface:
		return from, false
	case KindNamespace:
		its, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
		if err != nil {
			return from, false
		}
		theirs, err := os.Stat(d.Namespace)
		return from, err == nil && os.SameFile(its, theirs)
	}
	return from, true
}

func (a *Agent) doorNames() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.doors {
		names = append(names, d.Name())
	}
	return names
}

// explain decides as decide does, and says why not otherwise. others names the
// placements that are none of the caller's.
func (b *book) explain(s sought, want evidence.Want, others bool) DoorExplanation {
	out := DoorExplanation{Door: s.ev.Door, Grade: s.ev.Grade.String()}
	for _, sel := range s.ev.Selectors {
		out.Selectors = append(out.Selectors, string(sel))
	}
	best, err := b.find(s)
	switch {
	case s.ev.Door == RunDoor && s.resource == "":
		best = nil
		out.Reason = "a start says which resource it is; say which one to have it explained"
	case err != nil:
		out.Reason = problem.Of(err).Detail
	default:
		out.Placement, out.Resource = best.Name, best.Resource
	}
	if d := b.doors[s.ev.Door]; d != nil {
		for _, p := range d.all {
			why := s.ev.Lacks(p.required)
			switch {
			case p == best:
			case why != "" && !others:
				out.Hidden++
			default:
				out.OtherPlacements = append(out.OtherPlacements, Why{p.Name, cmp.Or(why, s.instead(p, best))})
			}
		}
	}
	if best == nil {
		return out
	}
	v := best.rules.judge(s.ev, want)
	out.Allowed, out.Rule, out.Identity, out.Reason, out.Would = v.Allowed, v.Rule, v.Identity, v.Reason, v.Would
	if want.Named {
		out.Identity = want.Identity
	}
	if r := best.rules; r != nil && r.broken == "" {
		for _, m := range evidence.Decide(r.list, s.ev, want).Misses {
			out.OtherRules = append(out.OtherRules, Why{m.Rule, m.Why})
		}
	}
	return out
}

// instead says why p, which matches the caller, is not what counts.
func (s *sought) instead(p, best *placed) string {
	switch {
	case s.ev.Door == RunDoor && (s.resource == "" || !sameResource(p.Resource, s.resource)):
		return "a start of this caller may be " + p.Resource + " by it"
	case best != nil:
		return "it matches too, and " + best.Name + " counts before it"
	}
	return "it matches, and so does another that names another resource"
}
