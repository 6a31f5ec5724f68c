package access

import (
	"fmt"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
)

// mustCondition reads a condition that a test is sure of.
func mustCondition(t *testing.T, text string) *Condition {
	t.Helper()
	c, err := ParseCondition(text)
	if err != nil {
		t.Fatalf("ParseCondition(%q): %v", text, err)
	}
	return c
}

// asked is the operation that the tables ask about.
var asked = Operation{
	Action: getSecret, Data: true,
	Attributes: Attributes{
		Request: Values{
			"Microsoft.Authorization/roleAssignments:RoleDefinitionId": {"4633458B-17de-408a-b874-0445c86b69e6"},
			"subOperation": {"Secret.List"}, "size": {"10"}, "none": {},
		},
		Resource: Values{
			"Microsoft.KeyVault/vaults/secrets:name": {"shop-db"},
			"Microsoft.Resources/tags:Project":       {"Cascade"},
			"Microsoft.Resources/tags:Owner":         {"Jörg"},
			"colours":                                {"red", "blue"}, "path": {"a*c"}, "locked": {"True"},
		},
		Principal:   Values{"Microsoft.Directory/CustomSecurityAttributes/Id:Engineering_Project": {"Cascade", "Baker"}},
		Environment: Values{"UtcNow": {"2026-06-01T12:00:00.5Z"}},
		Caller:      Values{"Innate.Fleet/callers:selectors": {"unix:uid:1000", "systemd:id:shop.service"}},
	},
}

func TestCondition(t *testing.T) {
	const name, project = "@Resource[Microsoft.KeyVault/vaults/secrets:name]", "@Resource[Microsoft.Resources/tags:Project<$key_case_sensitive$>]"
	for _, tt := range []struct {
		text string
		want Truth
	}{
		{"ActionMatches{'Microsoft.KeyVault/vaults/secrets/getSecret/action'}", True},
		{"ActionMatches{'microsoft.keyvault/vaults/*'}", True},
		{"ActionMatches{'Microsoft.KeyVault/vaults/secrets/*/delete'}", False},
		{"!(ActionMatches{'Microsoft.KeyVault/*'})", False},
		{"NOT ActionMatches{'x'}", True},
		{"!!ActionMatches{'x'}", False},
		{"SubOperationMatches{'secret.list'}", True},
		{"SubOperationMatches{'Blob.List'}", False},
		{"@Request[subOperation] ForAnyOfAnyValues:StringEqualsIgnoreCase {'secret.LIST'}", True},

		{name + " StringEquals 'shop-db'", True},
		{name + " StringEquals 'Shop-db'", False},
		{name + " StringEqualsIgnoreCase 'Shop-DB'", True},
		{name + " StringNotEquals 'Shop-db'", True},
		{name + " StringNotEqualsIgnoreCase 'Shop-DB'", False},
		{name + " StringStartsWith 'shop-'", True},
		{name + " StringStartsWithIgnoreCase 'SHOP-'", True},
		{name + " StringNotStartsWith 'shop-'", False},
		{name + " StringNotStartsWithIgnoreCase 'pay-'", True},
		{name + " StringLike 'shop-*'", True},
		{name + " StringLikeIgnoreCase 'SHOP-??'", True},
		{name + " StringNotLike 'shop-?'", True},
		{name + " StringNotLikeIgnoreCase 'Shop-*'", False},
		{"@Resource[path] StringLike 'a\\*c'", True},
		{"'abc' StringLike 'a\\*c'", False},
		{"'abcd' StringLike 'a*c?'", True}, // the published examples
		{"'abcd' StringLike 'A*C?'", False},
		{"'abcd' StringLike 'a*c'", False},
		{"'it''s' StringEquals 'it''s'", True},
		{"@Resource[Microsoft.Resources/tags:owner] StringEqualsIgnoreCase 'JÖRG'", True},
		{"'k' StringEqualsIgnoreCase '\u212a'", False}, // the Kelvin sign is no k

		// Attributes compare without case, but for a key that is marked.
		{"@resource[MICROSOFT.RESOURCES/TAGS:PROJECT] stringequals 'Cascade'", True},
		{project + " StringEquals 'Cascade'", True},
		{"@Resource[microsoft.resources/tags:Project<$key_case_sensitive$>] StringEquals 'Cascade'", True},
		{"@Resource[Microsoft.Resources/tags:project<$key_case_sensitive$>] StringEquals 'Cascade'", Unknown},
		{project + " ForAnyOfAnyValues:StringEquals @Principal[Microsoft.Directory/CustomSecurityAttributes/Id:Engineering_Project]", True},
		{"@Principal[Microsoft.Directory/CustomSecurityAttributes/Id:Engineering_Project] ForAllOfAnyValues:StringEquals " + project, False},
		{"'systemd:id:shop.service' ForAnyOfAnyValues:StringEquals @Caller[Innate.Fleet/callers:selectors]", True},

		// What is not there is unknown, whichever way it is asked.
		{"@Resource[none] StringEquals 'x'", Unknown},
		{"@Resource[none] StringNotEquals 'x'", Unknown},
		{"!(@Resource[none] StringEquals 'x')", Unknown},
		{"@Request[none] ForAllOfAnyValues:StringEquals {'x'}", Unknown}, // no values are not all of them
		{"'x' ForAnyOfAllValues:StringNotEquals @Request[none]", Unknown},
		{"@Principal[Microsoft.KeyVault/vaults/secrets:name] StringEquals 'shop-db'", Unknown}, // another source's
		{"Exists @Resource[none]", False},
		{"Exists @Request[none]", False},
		{"NOT Exists @Resource[none]", True},
		{"Exists " + name, True},
		{"@Resource[none] StringEquals 'x' OR " + name + " StringEquals 'shop-db'", True},
		{"@Resource[none] StringEquals 'x' OR " + name + " StringEquals 'x'", Unknown},
		{"@Resource[none] StringEquals 'x' AND " + name + " StringEquals 'x'", False},
		{"@Resource[none] StringEquals 'x' && " + name + " StringEquals 'shop-db'", Unknown},
		{"@Resource[colours] StringEquals 'red'", Unknown}, // one of them is not it

		{"@Request[size] NumericEquals 10", True},
		{"@Request[size] NumericEquals 10.0", True},
		{"@Request[size] NumericEquals 010", True},
		{"@Request[size] NumericNotEquals 10", False},
		{"@Request[size] NumericLessThan 9", False}, // not as texts
		{"@Request[size] NumericLessThanEquals 10", True},
		{"@Request[size] NumericGreaterThan -10.5", True},
		{"@Request[size] NumericGreaterThanEquals 11", False},
		{name + " NumericEquals 1", Unknown},
		{"90071992547409930001 NumericGreaterThan 90071992547409930000", True},
		{"@Resource[locked] BoolEquals true", True},
		{"@Resource[locked] BoolNotEquals 'true'", False},
		{"@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] GuidEquals '4633458b-17de-408a-b874-0445c86b69e6'", True},
		{"@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] GuidNotEquals 4633458B-17DE-408a-b874-0445c86b69e6", False},
		{"@Request[Microsoft.Authorization/roleAssignments:RoleDefinitionId] ForAnyOfAllValues:GuidNotEquals {8e3af657-a8ff-443c-a75c-2fe8c4bcb635, 18d7d88d-d35e-4fb5-a5c3-7773c20a72d9}", True},
		{"@Environment[UtcNow] DateTimeGreaterThan '2026-06-01T12:00:00Z'", True},
		{"@Environment[UtcNow] DateTimeLessThan '2026-06-01T12:00:00.5000001Z'", True},
		{"@Environment[UtcNow] DateTimeEquals '2026-06-01T14:00:00.500+02:00'", True},
		{"@Environment[UtcNow] DateTimeNotEquals '2026-06-01T12:00:00.0Z'", True},
		{"@Environment[UtcNow] DateTimeLessThanEquals '2026-06-01T12:00:00.4Z'", False},
		{"@Environment[UtcNow] DateTimeGreaterThanEquals '2026-06-01T12:00:00.5Z'", True},

		// The published examples of quantifiers.
		{"{'red', 'blue'} ForAnyOfAnyValues:StringEquals {'blue', 'green'}", True},
		{"{'red', 'blue'} ForAnyOfAnyValues:StringEquals {'orange', 'green'}", False},
		{"{'red', 'blue'} ForAllOfAnyValues:StringEquals {'orange', 'red', 'blue'}", True},
		{"{'red', 'blue'} ForAllOfAnyValues:StringEquals {'red', 'green'}", False},
		{"{10, 20} ForAnyOfAllValues:NumericLessThan {15, 18}", True},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {5, 15, 18}", False},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {25, 30}", True},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {15, 25, 30}", False},
	} {
		c := mustCondition(t, tt.text)
		if got := c.Holds(asked); got != tt.want {
			t.Errorf("%s = %d, want %d", tt.text, got, tt.want)
		}
		if got, why := c.Explain(asked); got != tt.want || why == "" {
			t.Errorf("%s is explained as %d, %q, want %d", tt.text, got, why, tt.want)
		}
	}
}

func TestConditionSaysWhatDecided(t *testing.T) {
	const name = "@Resource[Microsoft.KeyVault/vaults/secrets:name]"
	for _, tt := range []struct{ text, want string }{
		{"(!(ActionMatches{'Microsoft.KeyVault/vaults/secrets/getSecret/action'})) OR (" + name + " StringLike 'pay-*')",
			"the action " + getSecret + " matches 'Microsoft.KeyVault/vaults/secrets/getSecret/action'; " + name + " StringLike 'pay-*' does not hold: " + name + " is 'shop-db'"},
		{name + " StringEquals 'shop-db' AND Exists @Resource[x]", "@Resource[x] is not there"},
		{name + " StringEquals 'shop-db' AND @Resource[x] BoolEquals true", "@Resource[x] BoolEquals true is unknown: @Resource[x] is not there"},
		{name + " StringEquals 'shop-db' OR Exists @Resource[x]", name + " StringEquals 'shop-db' holds"},
		{"@Resource[colours] StringEquals 'red'", "@Resource[colours] StringEquals 'red' is unknown: @Resource[colours] has 2 values; one was expected, or ForAnyOfAnyValues: before the operator"},
		{name + " NumericEquals 1", name + " NumericEquals 1 is unknown: 'shop-db' is not a number without quotation marks, like 10"},
		{"@Resource[colours] ForAnyOfAnyValues:StringEquals @Request[size]", "@Resource[colours] ForAnyOfAnyValues:StringEquals @Request[size] does not hold: @Resource[colours] is 'red', 'blue' and @Request[size] is '10'"},
	} {
		if _, got := mustCondition(t, tt.text).Explain(asked); got != tt.want {
			t.Errorf("%s is explained:\n%s\nwant\n%s", tt.text, got, tt.want)
		}
	}
}

func TestConditionPrints(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"((!(ActionMatches{'a/b'})) or (@resource[x:y] forAnyOfAnyValues:GuidEquals{AAAAAAAA-0000-0000-0000-000000000001 , '00000000-0000-0000-0000-000000000002'}))",
			"!(ActionMatches{'a/b'}) OR @Resource[x:y] ForAnyOfAnyValues:GuidEquals {aaaaaaaa-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000002}"},
		{"!(ActionMatches{'a'} AND NOT SubOperationMatches{'b'})", "!(ActionMatches{'a'} AND !(SubOperationMatches{'b'}))"},
		{"@Environment[ UtcNow ]\n\tDateTimeGreaterThan '2026-01-01T00:00:00.0Z' && ((not exists @Caller[x]))",
			"@Environment[UtcNow] DateTimeGreaterThan '2026-01-01T00:00:00.0Z' AND !(Exists @Caller[x])"},
		{"@Resource[t:K<$key_case_sensitive$>] BoolEquals 'TRUE' || ('a' StringEquals 'b' || 1 NumericEquals {-2.50})",
			"@Resource[t:K<$key_case_sensitive$>] BoolEquals true OR ('a' StringEquals 'b' OR 1 NumericEquals -2.50)"},
	} {
		c := mustCondition(t, tt.text)
		if got := c.String(); got != tt.want {
			t.Errorf("%s prints\n%s\nwant\n%s", tt.text, got, tt.want)
		}
		if got := mustCondition(t, tt.want).String(); got != tt.want {
			t.Errorf("%s prints %s", tt.want, got)
		}
	}
}

func TestConditionFaults(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", "character 1: it has nothing more where a part (an attribute like @Resource[...], a value, ActionMatches{'...'}, Exists, ! or a parenthesis) was expected"},
		{"   ", "character 4: it has nothing more"},
		{"(Exists @Resource[x]", "character 21: it has nothing more where AND, OR or ) was expected"},
		{"Exists @Resource[x])", "character 20: it has ) where AND, OR or the end was expected"},
		{"Exists 'x'", "character 8: it has 'x' where an attribute like @Resource[...] was expected"},
		{"Exists @Resource[x] AND Exists @Resource[y] OR Exists @Resource[z]", "character 45: AND and OR stand beside each other"},
		{"@Resource[x] OR Exists @Resource[y]", "character 14: it has OR where an operator, like StringEquals, NumericLessThan or ForAnyOfAnyValues:GuidEquals, was expected"},
		{"@Resource[x] StringSame 'y'", "character 14: it has StringSame where an operator"},
		{"@Resource[x] ForSome:StringEquals 'y'", "character 14: it has ForSome:StringEquals where ForAnyOfAnyValues:"},
		{"@Resource[x] 'StringEquals' 'y'", "character 14: it has 'StringEquals' where an operator"},
		{"@Resource[x] StringEquals", "character 26: it has nothing more where a part"},
		{"@Resource[x] StringEquals y", "character 27: StringEquals has y where a text in single quotation marks was expected"},
		{"'ö' StringEquals y", "character 18: StringEquals has y"}, // characters, not bytes
		{"@Resource[x] StringEquals {'a', 'b'}", "character 27: StringEquals compares one value with one; ForAnyOfAnyValues:StringEquals"},
		{"@Resource[x] ForAnyOfAnyValues:StringEquals {'a' 'b'}", "character 50: it has 'b' where } was expected"},
		{"@Resource[x] ForAnyOfAnyValues:StringEquals {}", "character 46: it has } where a value was expected"},
		{"@Resource[x] ForAnyOfAnyValues:StringEquals {'a', @Resource[y]}", "character 51: it has @Resource[y] where a value was expected"},
		{"@Resource[x] NumericEquals '5'", "character 28: NumericEquals has '5' where a number without quotation marks, like 10 was expected"},
		{"@Resource[x] NumericEquals 1e9", "character 28: NumericEquals has 1e9 where a number"},
		{"@Resource[x] NumericEquals 1-2", "character 28: NumericEquals has 1-2 where a number"},
		{"@Resource[x] NumericEquals .5", "character 28: NumericEquals has .5 where a number"},
		{"@Resource[x] BoolEquals yes", "character 25: BoolEquals has yes where true or false was expected"},
		{"@Resource[x] BoolLessThan true", "character 14: it has BoolLessThan where an operator"},
		{"@Resource[x] GuidEquals {4633458b}", "character 26: GuidEquals has 4633458b where a GUID"},
		{"@Resource[x] DateTimeEquals '2026-13-01T00:00:00Z'", "character 29: DateTimeEquals has '2026-13-01T00:00:00Z' where a time"},
		{"@Environment[UtcNow] DateTimeLessThan 2026-01-01", "character 39: DateTimeLessThan has 2026-01-01 where a time in single quotation marks"},
		{"@Resource[x] StringEquals 'y", "character 27: the quotation mark is never closed; another ' was expected"},
		{"@Resource[x StringEquals 'y'", "character 1: the attribute's bracket is never closed; @Resource[name] was expected"},
		{"@Resource", "character 1: the attribute has no name; @Source[name] was expected"},
		{"@Somebody[x] StringEquals 'y'", "character 1: there is no source @Somebody; @Principal, @Resource, @Request, @Environment or @Caller was expected"},
		{"Exists @Resource[]", "character 18: the attribute has no name; one like"},
		{"Exists @Resource[x<$key_case_sensitive$>]", "character 18: the attribute's name has <$key_case_sensitive$> without a key"},
		{"Exists @Resource[t:x<$other$>]", "character 18: the attribute's name has '<'"},
		{"Exists @Resource[" + strings.Repeat("x", 513) + "]", "character 18: the attribute's name is 513 bytes long; at most 512"},
		{"ActionMatches('x')", "character 14: it has ( where { was expected"},
		{"ActionMatches{x}", "character 15: it has x where an action in single quotation marks"},
		{"ActionMatches{''}", "character 15: it has '' where an action"},
		{"ActionMatches{'x', 'y'}", "character 18: it has , where } was expected"},
		{"a & b", "character 3: '&' begins nothing that a condition has"},
		{"'\xff' StringEquals 'x'", "character 1: the text is not UTF-8"},
		{"Exists @Resource[\xff]", "character 18: the attribute's name has"},
		{"\"x\" StringEquals 'x'", `character 1: '"' begins nothing`},
		{strings.Repeat("(", 200) + "Exists @Resource[x]" + strings.Repeat(")", 200), "character 129: there are over 128 parentheses in one another"},
		{strings.Repeat("(Exists @Resource[x] AND (Exists @Resource[x] OR ", 20) + "Exists @Resource[x]" + strings.Repeat("))", 20), "character 1: its parts lie over 32 deep in one another"},
		{"Exists @Resource[x] AND " + strings.Repeat(" ", MaxCondition), "The condition is 8216 bytes long; at most 8192 are allowed."},
	} {
		_, err := ParseCondition(tt.text)
		if !problem.Is(err, problem.Invalid) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseCondition(%.80q) = %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func FuzzCondition(f *testing.F) {
	r, _ := BuiltIn("8b54135c-b56d-4d72-a534-26097cfdc8d8")
	f.Add(r.Permissions[0].Condition)
	f.Add("@Resource[t:K<$key_case_sensitive$>] ForAllOfAnyValues:NumericLessThan {1, -2.5} AND NOT Exists @Caller[x]")
	f.Add("!(SubOperationMatches{'a''b'} || @Environment[UtcNow] DateTimeEquals '2026-01-01T00:00:00.0Z') && 'a' StringLike '*\\??'")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCondition(text)
		if err != nil {
			if !problem.Is(err, problem.Invalid) {
				t.Errorf("ParseCondition(%q): %v, want a problem that says what is wrong", text, err)
			}
			return
		}
		again, err := parseCondition(c.String())
		if err != nil || again.String() != c.String() {
			t.Fatalf("%q prints %q, which reads as %v, %v", text, c, again, err)
		}
		got, why := c.Explain(asked)
		if got != c.Holds(asked) || got != again.Holds(asked) || why == "" {
			t.Errorf("%q = %d, explained as %d %q, printed and read again %d", text, c.Holds(asked), got, why, again.Holds(asked))
		}
		// Nothing is known of a request without attributes but what is absent.
		c.Holds(Operation{})
	})
}

// TestLikeEnds: patterns whose stars could be tried in very many ways.
func TestLikeEnds(t *testing.T) {
	text, pattern := strings.Repeat("a", 4000), strings.Repeat("a*", 2000)+"b"
	if like(text, pattern) {
		t.Error("a text without b matches a pattern that ends with one")
	}
	if !like(text+"b", pattern) {
		t.Error("the text with it does not")
	}
}

func BenchmarkCondition(b *testing.B) {
	r, _ := BuiltIn("8b54135c-b56d-4d72-a534-26097cfdc8d8")
	op := asked
	op.Action = giveRole
	b.ReportAllocs()
	for b.Loop() {
		c, err := ParseCondition(r.Permissions[0].Condition)
		if err != nil || c.Holds(op) != True {
			b.Fatal(err, fmt.Sprint(c))
		}
	}
}
