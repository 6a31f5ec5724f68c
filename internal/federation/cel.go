package federation

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	celast "cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/innate-id/innate/internal/problem"
)

// What one evaluation may use: far more than a comparison of claims needs, and
// milliseconds at most. The cost is CEL's own measure.
const (
	maxCost   = 20_000
	maxMemory = 100_000
	maxNodes  = 500
	maxRegexp = 1000
)

// environment has the variables iss, sub, aud and claims, and CEL's standard
// library without times: who evaluates has no clock, and whether a token is
// still good is no credential's business.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	subset := env.NewLibrarySubset()
	for _, f := range []string{
		"timestamp", "duration", "getFullYear", "getMonth", "getDayOfYear", "getDate", "getDayOfMonth",
		"getDayOfWeek", "getHours", "getMinutes", "getSeconds", "getMilliseconds",
	} {
		subset.AddExcludedFunctions(&env.Function{Name: f})
	}
	return cel.NewCustomEnv(
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.Variable("iss", cel.StringType),
		cel.Variable("sub", cel.StringType),
		cel.Variable("aud", cel.ListType(cel.StringType)),
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.EnableMacroCallTracking(), // to print an expression as it was written
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ParserRecursionLimit(32),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegexp),
	)
})

// compile checks an expression; the error says where it is wrong.
func compile(text string) (*cel.Ast, error) {
	bad := func(format string, args ...any) error {
		return problem.Errorf(problem.Invalid, "The member 'properties.claimsMatchingExpression.value' is wrong "+format, args...)
	}
	e, err := environment()
	if err != nil {
		return nil, fmt.Errorf("preparing CEL: %w", err)
	}
	ast, issues := e.Compile(text)
	if issues.Err() != nil {
		if all := issues.Errors(); len(all) > 0 {
			return nil, bad("%s: %s; a CEL expression over iss, sub, aud and claims was expected.", place(all[0].Location), problem.Clip(all[0].Message))
		}
		return nil, bad("as a CEL expression: %s", problem.Clip(issues.Err().Error()))
	}
	if t := ast.OutputType(); t != cel.BoolType {
		return nil, bad("in its result, which is of type %s; bool was expected, for example claims.environment == \"prod\".", t)
	}
	root := celast.NavigateAST(ast.NativeRep())
	if !aboutToken(root) {
		return nil, bad("in what it is about: it looks at neither sub nor claims, and would trust every token of the issuer or none.")
	}
	for _, call := range celast.MatchDescendants(root, celast.FunctionMatcher("matches")) {
		if why := anchored(call.AsCall()); why != "" {
			at := ast.NativeRep().SourceInfo().GetStartLocation(call.ID())
			return nil, bad("%s: %s", place(at), why)
		}
	}
	return ast, nil
}

// place says where in an expression something is.
func place(at common.Location) string {
	if at.Line() < 1 {
		return "as a whole"
	}
	return fmt.Sprintf("at line %d, character %d", at.Line(), at.Column()+1)
}

// aboutToken reports whether the expression looks at whom the token is of.
func aboutToken(root celast.NavigableExpr) bool {
	for _, e := range celast.MatchDescendants(root, celast.KindMatcher(celast.IdentKind)) {
		if n := e.AsIdent(); n == "sub" || n == "claims" {
			return true
		}
	}
	return false
}

// anchored says what is wrong with the pattern of a call of matches. CEL looks
// for it anywhere in the text: sub.matches("repo:org/app") also holds for
// "repo:org/application", and for "not-repo:org/app". So a pattern must say
// where it begins and ends, and be there to be read.
func anchored(call celast.CallExpr) string {
	args := call.Args()
	pattern := args[len(args)-1]
	if pattern.Kind() != celast.LiteralKind {
		return "matches takes a pattern that is written out, not one that is computed."
	}
	text, _ := pattern.AsLiteral().(types.String)
	re, err := syntax.Parse(string(text), syntax.Perl)
	if err != nil {
		return "the pattern is not a regular expression: " + err.Error()
	}
	subs := re.Sub
	if re.Op != syntax.OpConcat || subs[0].Op != syntax.OpBeginText || subs[len(subs)-1].Op != syntax.OpEndText {
		return "matches looks anywhere in the text; the pattern must begin with ^ and end with $, for example \"^(one|other)$\"."
	}
	return ""
}

// vars are the claims as an expression sees them.
func vars(c Claims) map[string]any {
	aud, all := c.Audience, c.All
	if aud == nil {
		aud = []string{}
	}
	if all == nil {
		all = map[string]any{}
	}
	return map[string]any{"iss": c.Issuer, "sub": c.Subject, "aud": aud, "claims": all}
}

// evaluate runs an expression. Its errors (a claim that is not there, a cost
// over the bound) are reasons why it does not hold.
func evaluate(text string, c Claims) (bool, string) {
	ast, err := compile(text)
	if err != nil {
		return false, problem.Of(err).Detail
	}
	ok, state, err := run(ast, c)
	if err != nil {
		return false, "the expression fails: " + problem.Clip(err.Error())
	}
	if ok {
		return true, "the expression is true"
	}
	if text, err := cel.ExprToString(culprit(ast, state), ast.NativeRep().SourceInfo()); err == nil {
		return false, "the expression is false, because this is: " + problem.Clip(text)
	}
	return false, "the expression is false"
}

// culprit is the part of a false expression that makes it so: the first that is
// known to be false, else the first of which nothing is known.
func culprit(ast *cel.Ast, state func(id int64) (any, bool)) celast.Expr {
	parts := conjuncts(ast.NativeRep().Expr())
	for _, p := range parts {
		if v, known := state(p.ID()); known && v == false {
			return p
		}
	}
	for _, p := range parts {
		if _, known := state(p.ID()); !known {
			return p
		}
	}
	return ast.NativeRep().Expr()
}

// run evaluates; state is what a part of the expression came to.
func run(ast *cel.Ast, c Claims) (ok bool, state func(id int64) (any, bool), err error) {
	e, err := environment()
	if err != nil {
		return false, nil, fmt.Errorf("preparing CEL: %w", err)
	}
	p, err := e.Program(ast, cel.CostLimit(maxCost), cel.MemoryLimit(maxMemory), cel.EvalOptions(cel.OptTrackState))
	if err != nil {
		return false, nil, fmt.Errorf("preparing the expression: %w", err)
	}
	v, details, err := p.Eval(vars(c))
	if err != nil {
		return false, nil, err
	}
	ok, isBool := v.Value().(bool)
	if !isBool {
		return false, nil, fmt.Errorf("its result is a %s", v.Type().TypeName())
	}
	return ok, func(id int64) (any, bool) {
		if v, ok := details.State().Value(id); ok {
			return v.Value(), true
		}
		return nil, false
	}, nil
}

// conjuncts are the parts that are joined by && at the top.
func conjuncts(e celast.Expr) []celast.Expr {
	if e.Kind() != celast.CallKind || e.AsCall().FunctionName() != operators.LogicalAnd {
		return []celast.Expr{e}
	}
	var out []celast.Expr
	for _, a := range e.AsCall().Args() {
		out = append(out, conjuncts(a)...)
	}
	return out
}

// ParseLanguage reads the name of an expression's language; "" is [Matching].
func ParseLanguage(s string) (Language, bool) {
	switch strings.ToLower(s) {
	case "", string(Matching):
		return Matching, true
	case string(CEL):
		return CEL, true
	}
	return "", false
}
