// Package federation decides whether a token of somebody else's issuer is as
// good as an identity's own key: what a federated identity credential says
// ([Credential]), what such a token says ([Claims]), and whether the one fits
// the other ([Credential.Match]), with reasons.
//
// It is a pure function of the two. Who fetches the issuer's keys and checks
// the signature is somebody else's part, and comes first: expressions are given
// only claims that an issuer has signed, but for a dry run.
//
// What a newcomer would get wrong: everything compares byte by byte. An issuer
// with another case, or with a slash at its end, is another issuer, and a
// subject that begins with the right one is another subject.
package federation

import (
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// The bounds of a credential, in bytes.
const (
	MaxIssuer     = 600
	MaxSubject    = 600
	MaxAudience   = 600
	MaxAudiences  = 10
	MaxExpression = 2048
)

// Language is what an expression is written in.
type Language string

// The languages.
const (
	// Matching is version 1 of the field's own language for flexible
	// credentials: claims['sub'] matches 'repo:org/*' and ...
	Matching Language = "matching"
	// CEL is the Common Expression Language, of which the result is a bool.
	CEL Language = "cel"
)

// Expression decides by a token's claims. The zero value is none.
type Expression struct {
	Language Language
	Text     string
}

// Credential says which tokens of which issuer stand for an identity.
type Credential struct {
	// Trust names what the credential says: a GUID, another one as soon as it
	// says something else. Tokens carry it that were issued by the credential.
	Trust string
	// Name is the credential's, unique within its identity.
	Name string
	// Issuer is the token's iss.
	Issuer string
	// Subject is the token's sub; "" where Expression decides.
	Subject    string
	Expression Expression
	// Audiences are those of which the token's aud must hold one.
	Audiences []string
}

// Says reports whether c and o trust the same tokens.
func (c Credential) Says(o Credential) bool {
	return c.Issuer == o.Issuer && c.Subject == o.Subject && c.Expression == o.Expression && slices.Equal(c.Audiences, o.Audiences)
}

// Check reports what is wrong with the credential, as [problem.Invalid]; the
// detail names the member of the resource's properties.
func (c Credential) Check() error {
	if err := checkIssuer(c.Issuer); err != nil {
		return err
	}
	if err := c.checkAudiences(); err != nil {
		return err
	}
	switch {
	case (c.Subject == "") == (c.Expression == Expression{}):
		return problem.Errorf(problem.Invalid, "Exactly one of the members 'properties.subject' and 'properties.claimsMatchingExpression' is needed.")
	case c.Subject != "":
		return checkText("properties.subject", c.Subject, MaxSubject)
	}
	text := c.Expression.Text
	if c.Expression.Language == CEL { // which may have several lines
		text = strings.NewReplacer("\n", " ", "\r", " ", "\t", " ").Replace(text)
	}
	if err := checkText("properties.claimsMatchingExpression.value", text, MaxExpression); err != nil {
		return err
	}
	if c.Expression.Language == CEL {
		_, err := compile(c.Expression.Text)
		return err
	}
	terms, err := parseTerms(c.Expression.Text)
	if err != nil {
		return err
	}
	return platformOf(c.Issuer).check(terms)
}

func (c Credential) checkAudiences() error {
	if n := len(c.Audiences); n == 0 || n > MaxAudiences {
		return problem.Errorf(problem.Invalid, "The member 'properties.audiences' has %d entries; 1 to %d were expected, for example \"api://AzureADTokenExchange\".", n, MaxAudiences)
	}
	for i, a := range c.Audiences {
		if err := checkText("properties.audiences["+strconv.Itoa(i)+"]", a, MaxAudience); err != nil {
			return err
		}
		if slices.Contains(c.Audiences[:i], a) {
			return problem.Errorf(problem.Invalid, "The member 'properties.audiences' has '%s' more than once.", problem.Clip(a))
		}
	}
	return nil
}

// checkText checks a text that a token's is compared with.
func checkText(member, s string, most int) error {
	switch {
	case s == "":
		return problem.Errorf(problem.Invalid, "The member '%s' is empty.", member)
	case len(s) > most:
		return problem.Errorf(problem.Invalid, "The member '%s' is %d bytes long; at most %d are allowed.", member, len(s), most)
	case strings.TrimSpace(s) != s:
		return problem.Errorf(problem.Invalid, "The member '%s' begins or ends with a space, which no token's claim would.", member)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError }):
		return problem.Errorf(problem.Invalid, "The member '%s' has control characters or is not UTF-8.", member)
	}
	return nil
}

// issuerChars are what a URL can hold without escapes that two readers could
// undo in two ways.
var issuerChars = regexp.MustCompile(`^https://[A-Za-z0-9._~:/\[\]@!$&'()*+,;=%-]+$`)

// checkIssuer checks an issuer's URL (OpenID Connect Discovery 1.0 section 2:
// https, without query and fragment).
func checkIssuer(s string) error {
	if err := checkText("properties.issuer", s, MaxIssuer); err != nil {
		return err
	}
	bad := func(why string) error {
		return problem.Errorf(problem.Invalid, "The member 'properties.issuer' is '%s', which %s; the URL that tokens have as iss was expected, for example https://token.actions.githubusercontent.com.", problem.Clip(s), why)
	}
	if !strings.HasPrefix(s, "https://") {
		return bad("does not begin with https://")
	}
	if strings.ContainsAny(s, "?#") {
		return bad("has a query or a fragment")
	}
	u, err := url.Parse(s)
	if err != nil || !issuerChars.MatchString(s) || u.Hostname() == "" {
		return bad("is not a URL with a host")
	}
	if u.User != nil || strings.Contains(u.Host, "@") {
		return bad("has a user name")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return bad("has a port that is none")
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return bad("has a colon without a port")
	}
	return nil
}
