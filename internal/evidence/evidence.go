// Package evidence says what can be known of a local caller: selectors, how
// good each is, and whether they match what a placement asks for. It only
// compares; taking the evidence is the agent's part (agent/caller).
package evidence

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// Selector is one statement about a caller, "unix:uid:1000". The words are
// SPIFFE's where SPIFFE has them.
type Selector string

// kinds are the prefixes that a selector may have, each with what follows it.
var kinds = []struct{ prefix, value string }{
	{"unix:uid:", "a user id"},
	{"unix:gid:", "a group id"},
	{"unix:user:", "a user name"},
	{"unix:group:", "a group name"},
	{"unix:supplementary_gid:", "a group id"},
	{"unix:supplementary_group:", "a group name"},
	{"unix:path:", "an executable's path"},
	{"unix:sha256:", "the executable's digest in hex"},
	{"systemd:id:", "a unit name"},
	{"cgroup:", "a cgroup path"},
	{"container:id:", "a container's id"},
	{"container:name:", "a container's name"},
	{"container:image:", "an image's name"},
	{"container:image_id:", "an image's digest"},
	{"container:label:", "a label, key:value"},
	{"vm:interface:", "an interface's name"},
	{"vm:name:", "a virtual machine's name"},
}

// Prefixes are what a selector may begin with.
func Prefixes() []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = k.prefix
	}
	return out
}

// Parse reads a selector; the error lists what one may begin with.
func Parse(s string) (Selector, error) {
	var prefixes []string
	for _, k := range kinds {
		if strings.HasPrefix(s, k.prefix) {
			if len(s) == len(k.prefix) {
				return "", problem.Errorf(problem.Invalid, "selector %q ends where %s was expected", s, k.value)
			}
			if len(s) > 512 {
				return "", problem.Errorf(problem.Invalid, "selector is over 512 bytes long")
			}
			if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
				// It could not be kept or sent as it is, and so never match.
				return "", problem.Errorf(problem.Invalid, "selector %q has a control character or is not UTF-8", s)
			}
			return Selector(s), nil
		}
		prefixes = append(prefixes, k.prefix)
	}
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return "", problem.Errorf(problem.Invalid, "selector %q begins with none of %s", s, strings.Join(prefixes, ", "))
}

// Grade says how the evidence was taken; a higher one is better.
type Grade int

// Grades, worst first.
const (
	// GradeNone: nothing but the door is known.
	GradeNone Grade = iota
	// GradeSecret: the caller showed a secret that only it was given.
	GradeSecret
	// GradeAfter: read from the system after the connection was made.
	GradeAfter
	// GradeKernel: recorded by the kernel when the connection was made.
	GradeKernel
)

var grades = [...]string{"none", "secret", "after-the-fact", "kernel"}

// String returns the grade's word.
func (g Grade) String() string {
	if g < 0 || int(g) >= len(grades) {
		return "unknown"
	}
	return grades[g]
}

// ParseGrade reads a grade's word.
func ParseGrade(s string) (Grade, error) {
	if i := slices.Index(grades[:], s); i >= 0 {
		return Grade(i), nil
	}
	return GradeNone, problem.Errorf(problem.Invalid, "%q is no grade of evidence; %s are", problem.Clip(s), strings.Join(grades[:], ", "))
}

// Evidence is what is known of one caller.
type Evidence struct {
	// Door is where it came in, by the door's name.
	Door string
	// Start names which start of a workload a per-start secret belongs to;
	// empty where there is no such secret.
	Start string
	// Selectors are all that hold, sorted.
	Selectors []Selector
	Grade     Grade
	// Interpreter says that the executable runs programs that it is given
	// (python, node, sh): its own digest and path say nothing of those.
	Interpreter bool
	// Process is the process that connected, where the kernel said which. It is
	// for people who look into a live system; it is in no token and no record.
	Process Process
}

// Process names one process of this host.
type Process struct {
	// PID is 0 where the process is not known.
	PID int
	// Executable is its path as the kernel has it.
	Executable string
}

// Matches reports whether every required selector holds. No requirement
// always matches.
func (e Evidence) Matches(required []Selector) bool {
	f, _ := e.flaw(required)
	return f == flawless
}

// Lacks says why the required selectors do not match, in words that begin with
// "the caller"; "" if they do.
func (e Evidence) Lacks(required []Selector) string {
	f, s := e.flaw(required)
	return f.say(s)
}

// flaw finds why the required selectors do not match, and which of them it is
// about. It makes no text: most rules that are looked at match nobody.
func (e Evidence) flaw(required []Selector) (flaw, Selector) {
	for _, r := range required {
		if !slices.Contains(e.Selectors, r) {
			return flawSelector, r
		}
	}
	if e.Interpreter && len(required) > 0 && !slices.ContainsFunc(required, func(s Selector) bool { return !s.ofExecutable() }) {
		return flawInterpreter, ""
	}
	return flawless, ""
}

// flaw is why evidence does not match what is required.
type flaw int

const (
	flawless flaw = iota
	flawSelector
	flawInterpreter
)

func (f flaw) say(s Selector) string {
	switch f {
	case flawSelector:
		return "the caller is not " + quote(string(s))
	case flawInterpreter:
		return "the caller is an interpreter, which its executable alone does not identify: add the unit or the container"
	}
	return ""
}

// ofExecutable reports whether s is about the executable's file alone.
func (s Selector) ofExecutable() bool {
	return strings.HasPrefix(string(s), "unix:sha256:") || strings.HasPrefix(string(s), "unix:path:")
}

// described reports whether s is in the description of a caller. What differs
// between two runs of one program is not, for that must be in no token and no
// key of a cache; nor are labels and supplementary groups, of which there can be
// too many for a claim.
func (s Selector) described() bool {
	for _, prefix := range []string{"cgroup:", "container:id:", "container:label:", "unix:supplementary_"} {
		if strings.HasPrefix(string(s), prefix) {
			return false
		}
	}
	return !strings.HasPrefix(string(s), "systemd:id:") || !strings.HasSuffix(string(s), ".scope")
}

// String describes the caller for the record and for a token's innate_caller
// claim: door, selectors, grade. Nothing in it changes from one connection to
// the next: no pid is in it, no cgroup's path, no container's id. Rules are
// judged by all selectors, not by what is in here.
//
// A word with a space or anything unprintable in it is quoted: who names an
// executable "x unix:uid:0 grade:kernel" must not write the record.
func (e Evidence) String() string {
	parts := make([]string, 0, len(e.Selectors)+2)
	parts = append(parts, quote("door:"+e.Door))
	for _, s := range e.Selectors {
		if s.described() {
			parts = append(parts, quote(string(s)))
		}
	}
	return strings.Join(append(parts, "grade:"+e.Grade.String()), " ")
}

func quote(s string) string {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '"' {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}
