package evidence

import (
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// maxDescription bounds a description that is read, in bytes.
const maxDescription = 64 << 10

// ParseDescription reads what [Evidence.String] wrote, as the record and
// tokens have it. What the words leave out (a cgroup's path, a container's id,
// whether the executable is an interpreter) is not in what it returns.
func ParseDescription(s string) (Evidence, error) {
	if len(s) > maxDescription {
		return Evidence{}, problem.Errorf(problem.Invalid, "the description of a caller is over %d bytes long", maxDescription)
	}
	words, err := split(s)
	if err != nil {
		return Evidence{}, err
	}
	if len(words) < 2 {
		return Evidence{}, notDescribed(s)
	}
	door, ok := strings.CutPrefix(words[0], "door:")
	last, graded := strings.CutPrefix(words[len(words)-1], "grade:")
	if !ok || !graded {
		return Evidence{}, notDescribed(s)
	}
	ev := Evidence{Door: door}
	if ev.Grade, err = ParseGrade(last); err != nil {
		return Evidence{}, err
	}
	for _, w := range words[1 : len(words)-1] {
		sel, err := Parse(w)
		if err != nil {
			return Evidence{}, err
		}
		ev.Selectors = append(ev.Selectors, sel)
	}
	return ev, nil
}

func notDescribed(s string) error {
	return problem.Errorf(problem.Invalid, "%q describes no caller; \"door:NAME SELECTOR... grade:GRADE\" was expected, as events have it in via", problem.Clip(s))
}

// split takes a description apart into its words; those that were quoted are
// not any more.
func split(s string) ([]string, error) {
	var words []string
	for {
		word, rest := s, ""
		if strings.HasPrefix(s, `"`) {
			quoted, err := strconv.QuotedPrefix(s)
			if err != nil {
				return nil, problem.Errorf(problem.Invalid, "a description of a caller has a word whose quotes do not end")
			}
			if word, err = strconv.Unquote(quoted); err != nil {
				return nil, problem.Errorf(problem.Invalid, "a description of a caller has a quoted word that cannot be read")
			}
			rest = s[len(quoted):]
		} else if i := strings.IndexByte(s, ' '); i >= 0 {
			word, rest = s[:i], s[i:]
		}
		words = append(words, word)
		if rest == "" {
			return words, nil
		}
		if rest[0] != ' ' {
			return nil, problem.Errorf(problem.Invalid, "a description of a caller has two words without a space between them")
		}
		s = rest[1:]
	}
}

// Warnings says what somebody should know who writes the rule.
func (r Rule) Warnings() []string {
	if len(r.Selectors) == 0 {
		return nil
	}
	paths, known := 0, false
	for _, s := range r.Selectors {
		if !s.ofExecutable() {
			return nil
		}
		if p, ok := strings.CutPrefix(string(s), "unix:path:"); ok {
			paths++
			known = known || IsInterpreter(p)
		}
	}
	switch {
	case known:
		return []string{"The executable is an interpreter, which its own file never identifies: it would be every script that it runs, and so the rule matches none of its callers. Add a selector of the unit (systemd:id:) or of the container (container:image_id:, container:name:)."}
	case paths == 0:
		return []string{"All selectors are about the executable's file, and an interpreter (python, node, java, sh) is never identified by its own file: if this is one, the rule matches nobody. Add a selector of the unit (systemd:id:) or of the container (container:image_id:, container:name:)."}
	}
	return nil
}
