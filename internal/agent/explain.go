package agent

import (
	"encoding/json"
	"net/http"
	"net/url"
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
	want evidence.Want
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
		if !slices.Contains([]string{"pid", "door", "resource", "identity"}, k) || len(v) > 1 {
			return q, problem.Errorf(problem.Invalid, "pid, door, resource and identity were expected, each once; there is %q", problem.Clip(k))
		}
	}
	if q.pid, err = strconv.Atoi(values.Get("pid")); err != nil || q.pid < 1 {
		return q, problem.Errorf(problem.Invalid, "pid is %q; a process id was expected", problem.Clip(values.Get("pid")))
	}
	q.door = values.Get("door")
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
	if q.door != "" {
		if !slices.Contains(names, q.door) {
			return Explanation{}, problem.Errorf(problem.Invalid, "there is no door %q; there are: %s", problem.Clip(q.door), strings.Join(names, ", "))
		}
		names = []string{q.door}
	}
	out := Explanation{PID: q.pid}
	book := a.feed.now()
	for _, name := range names {
		ev, err := a.callers.OfProcess(q.pid, caller.From{Door: name})
		// Evidence of a process that went, or was exchanged for another's
		// meanwhile, is as little anybody's to see as another's.
		owner, known := user(ev)
		if asker != root && (err != nil || !known || owner != asker) {
			return Explanation{}, problem.Errorf(problem.Denied, "there is no process %d of the user who asks (%s); root may ask about every process", q.pid, asker)
		}
		if err != nil {
			return Explanation{}, &problem.Error{Kind: problem.Invalid, Detail: "there is no process " + strconv.Itoa(q.pid) + " that could be looked at", Err: err}
		}
		if name == RunDoor {
			ev.Grade = evidence.GradeSecret // what a start has
		}
		out.Executable, out.Interpreter = ev.Process.Executable, ev.Interpreter
		out.Doors = append(out.Doors, book.explain(ev, q.want, asker == root))
	}
	return out, nil
}

func (a *Agent) doorNames() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.doors {
		names = append(names, d.Name())
	}
	return names
}

// explain decides as decide does, and says why not otherwise.
func (b *book) explain(ev evidence.Evidence, want evidence.Want, others bool) DoorExplanation {
	out := DoorExplanation{Door: ev.Door, Grade: ev.Grade.String()}
	for _, s := range ev.Selectors {
		out.Selectors = append(out.Selectors, string(s))
	}
	best, err := b.find(sought{ev: ev})
	if err != nil {
		out.Reason = problem.Of(err).Detail
	} else {
		out.Placement, out.Resource = best.Name, best.Resource
	}
	if d := b.doors[ev.Door]; d != nil {
		for _, p := range d.all {
			if p == best {
				continue
			}
			why := ev.Lacks(p.required)
			if why != "" && !others {
				out.Hidden++
				continue
			}
			if why == "" && best != nil {
				why = "it matches too, and " + best.Name + " counts before it"
			} else if why == "" {
				why = "it matches, and so does another that names another resource"
			}
			out.OtherPlacements = append(out.OtherPlacements, Why{p.Name, why})
		}
	}
	if best == nil {
		return out
	}
	v := b.judge(best.Resource, ev, want)
	out.Allowed, out.Rule, out.Identity, out.Reason, out.Would = v.Allowed, v.Rule, v.Identity, v.Reason, v.Would
	if want.Named {
		out.Identity = want.Identity
	}
	if r := b.rules[resourceKey(best.Resource)]; r != nil && r.broken == "" {
		for _, m := range evidence.Decide(r.list, ev, want).Misses {
			out.OtherRules = append(out.OtherRules, Why{m.Rule, m.Why})
		}
	}
	return out
}
