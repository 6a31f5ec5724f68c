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
	{"unix:path:", "an executable's path"},
	{"unix:sha256:", "the executable's digest in hex"},
	{"systemd:id:", "a unit name"},
	{"cgroup:", "a cgroup path"},
	{"container:", "a container fact"},
	{"vm:", "a virtual machine fact"},
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

// String returns the grade's word.
func (g Grade) String() string {
	words := [...]string{"none", "secret", "after-the-fact", "kernel"}
	if g < 0 || int(g) >= len(words) {
		return "unknown"
	}
	return words[g]
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
}

// Matches reports whether every required selector holds. No requirement
// always matches.
func (e Evidence) Matches(required []Selector) bool {
	for _, r := range required {
		if !slices.Contains(e.Selectors, r) {
			return false
		}
	}
	return true
}

// String describes the caller for the record and for a token's innate_caller
// claim: door, selectors, grade. Nothing in it changes from one connection to
// the next, and no pid is ever in it.
//
// A word with a space or anything unprintable in it is quoted: who names an
// executable "x unix:uid:0 grade:kernel" must not write the record.
func (e Evidence) String() string {
	parts := make([]string, 0, len(e.Selectors)+2)
	parts = append(parts, quote("door:"+e.Door))
	for _, s := range e.Selectors {
		parts = append(parts, quote(string(s)))
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
