package access

import (
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// MaxCondition is the longest condition that is read, in bytes.
const MaxCondition = 8192

// maxDepth is how deep the parts of a condition may lie in one another.
const maxDepth = 32

// Condition narrows a role assignment, a deny assignment or a permission of a
// role: it must hold for what they say to count. The language is version 2.0
// of Azure's, with one source of attributes more, the calling program:
//
//	(
//	  (!(ActionMatches{'Microsoft.KeyVault/vaults/secrets/getSecret/action'}))
//	  OR
//	  (@Resource[Microsoft.KeyVault/vaults/secrets:name] StringLike 'shop-*'
//	   AND @Caller[Innate.Fleet/callers:selectors] ForAnyOfAnyValues:StringEquals {'systemd:id:shop.service'})
//	)
//
// It has three answers ([Truth]). An attribute that is not there makes what is
// said about it unknown, whichever way it is said: a tag that nobody set is
// neither 'prod' nor something other than 'prod'. Exists asks whether it is
// there. A condition that is unknown as a whole gives nothing, and denies.
//
// AND beside OR needs parentheses: nobody should have to know which binds
// tighter to see what a right depends on.
type Condition struct{ root expr }

// Truth is what a condition comes to.
type Truth int8

// The truths, in this order: AND is the least of its parts, OR the greatest,
// and NOT changes the sign.
const (
	False   Truth = -1
	Unknown Truth = 0
	True    Truth = 1
)

func truth(b bool) Truth {
	if b {
		return True
	}
	return False
}

// expr is a part of a condition.
type expr interface {
	// print writes the part as it is read again.
	print(b *strings.Builder)
	eval(op *Operation) Truth
	// explain is eval with the words of what decided.
	explain(op *Operation) (Truth, string)
	// depth is how deep its parts lie in it.
	depth() int
}

// ParseCondition reads a condition; the error says which part is wrong, where
// it is and what was expected.
func ParseCondition(text string) (*Condition, error) {
	if len(text) > MaxCondition {
		return nil, problem.Errorf(problem.Invalid, "The condition is %d bytes long; at most %d are allowed.", len(text), MaxCondition)
	}
	return parseCondition(text)
}

// String returns the condition as one line in one spelling of many, which
// means the same when it is read again.
func (c *Condition) String() string {
	var b strings.Builder
	c.root.print(&b)
	return b.String()
}

// Holds says whether the condition holds for op.
func (c *Condition) Holds(op Operation) Truth { return c.root.eval(&op) }

// Explain is Holds in words as well: which parts decided.
func (c *Condition) Explain(op Operation) (Truth, string) { return c.root.explain(&op) }

// every is parts with AND between them, some is parts with OR.
type (
	every  []expr
	some   []expr
	negate struct{ part expr }
)

func (e every) eval(op *Operation) Truth {
	least := True
	for _, part := range e {
		if least = min(least, part.eval(op)); least == False {
			break
		}
	}
	return least
}

func (e some) eval(op *Operation) Truth {
	most := False
	for _, part := range e {
		if most = max(most, part.eval(op)); most == True {
			break
		}
	}
	return most
}

func (e negate) eval(op *Operation) Truth { return -e.part.eval(op) }

func (e every) explain(op *Operation) (Truth, string) { return decisive(e, op, e.eval(op)) }

func (e some) explain(op *Operation) (Truth, string) { return decisive(e, op, e.eval(op)) }

func (e negate) explain(op *Operation) (Truth, string) {
	t, why := e.part.explain(op)
	return -t, why
}

// decisive explains an answer by the parts that have the same one: one of them
// is enough for the AND that is not true and the OR that is, and all of them
// are needed otherwise.
func decisive(parts []expr, op *Operation, answer Truth) (Truth, string) {
	var words []string
	for _, part := range parts {
		if t, why := part.explain(op); t == answer {
			words = append(words, why)
		}
	}
	return answer, strings.Join(words, "; ")
}

func (e every) print(b *strings.Builder)  { printParts(b, e, " AND ") }
func (e some) print(b *strings.Builder)   { printParts(b, e, " OR ") }
func (e negate) print(b *strings.Builder) { b.WriteByte('!'); enclose(b, e.part) }

func printParts(b *strings.Builder, parts []expr, between string) {
	for i, part := range parts {
		if i > 0 {
			b.WriteString(between)
		}
		switch part.(type) {
		case every, some:
			enclose(b, part)
		default:
			part.print(b)
		}
	}
}

func enclose(b *strings.Builder, e expr) {
	b.WriteByte('(')
	e.print(b)
	b.WriteByte(')')
}

func (e every) depth() int  { return deepest(e) }
func (e some) depth() int   { return deepest(e) }
func (e negate) depth() int { return 1 + e.part.depth() }

func deepest(parts []expr) int {
	n := 0
	for _, part := range parts {
		n = max(n, part.depth())
	}
	return 1 + n
}
