package sts

import (
	"encoding/base64"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// maxForm is the largest token request, in bytes.
const maxForm = 64 << 10

// Form is a token request as posted (RFC 6749 section 4.4.2, and the v1
// endpoint's resource). Unknown parameters are ignored: clients send many.
type Form struct {
	GrantType     string
	ClientID      string
	ClientSecret  string
	Assertion     string // client_assertion
	AssertionType string // client_assertion_type
	Scope         string
	Resource      string
}

// String keeps credentials out of logs.
func (f Form) String() string { return "form of client " + f.ClientID + " [redacted]" }

// LogValue does the same where a handler would look inside.
func (f Form) LogValue() slog.Value { return slog.StringValue(f.String()) }

// readForm reads the body of a token request.
func readForm(r *http.Request) (Form, error) {
	if ct, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || ct != "application/x-www-form-urlencoded" {
		return Form{}, problem.Errorf(problem.Invalid, "AADSTS900144: the token request must be a POST with Content-Type application/x-www-form-urlencoded")
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil {
		return Form{}, &problem.Error{Kind: problem.Invalid, Detail: "AADSTS900144: the token request's body could not be read", Err: err}
	}
	if len(b) > maxForm {
		return Form{}, problem.Errorf(problem.TooLarge, "AADSTS90013: the token request is over %d bytes long", maxForm)
	}
	f, err := parseForm(string(b))
	if err != nil {
		return Form{}, err
	}
	return f, f.basic(r)
}

// parseForm parses the body. A parameter that is read may be there once (RFC
// 6749 section 3.2).
func parseForm(body string) (Form, error) {
	v, err := url.ParseQuery(body)
	if err != nil {
		return Form{}, problem.Errorf(problem.Invalid, "AADSTS90013: the token request's body is not a URL-encoded form")
	}
	var f Form
	for name, to := range map[string]*string{
		"grant_type": &f.GrantType, "client_id": &f.ClientID, "client_secret": &f.ClientSecret,
		"client_assertion": &f.Assertion, "client_assertion_type": &f.AssertionType,
		"scope": &f.Scope, "resource": &f.Resource,
	} {
		if len(v[name]) > 1 {
			return Form{}, problem.Errorf(problem.Invalid, "AADSTS90013: the parameter %q is there more than once", name)
		}
		*to = v.Get(name)
	}
	return f, nil
}

// basic takes the client's credential from an Authorization header, if there
// is one (RFC 6749 section 2.3.1).
func (f *Form) basic(r *http.Request) error {
	h := r.Header.Get("Authorization")
	if h == "" {
		return nil
	}
	scheme, enc, _ := strings.Cut(h, " ")
	b, err := base64.StdEncoding.DecodeString(enc)
	id, secret, ok := strings.Cut(string(b), ":")
	if !strings.EqualFold(scheme, "Basic") || err != nil || !ok {
		return problem.Errorf(problem.BadCredential, "AADSTS7000215: the Authorization header is not Basic with a client id and a secret")
	}
	if f.ClientSecret != "" {
		return problem.Errorf(problem.Invalid, "AADSTS90013: the client authenticates twice, in the header and in the body")
	}
	if f.ClientID, err = url.QueryUnescape(id); err != nil {
		return problem.Errorf(problem.BadCredential, "AADSTS7000215: the Authorization header is not Basic with a client id and a secret")
	}
	f.ClientSecret = secret
	return nil
}

// audience is the one API that the form asks for: resource (v1), or a scope of
// one "{resource}/.default" beside the OpenID Connect scopes.
func (f Form) audience(v1 bool) (string, error) {
	if f.Resource != "" {
		return f.Resource, nil
	}
	if f.Scope == "" {
		missing := "scope"
		if v1 {
			missing = "resource"
		}
		return "", problem.Errorf(problem.MissingParameter, "AADSTS900144: The request body must contain the following parameter: '%s'.", missing)
	}
	var found []string
	for _, s := range strings.Fields(f.Scope) {
		switch s {
		case "openid", "profile", "offline_access", "email":
		default:
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		return "", problem.Errorf(problem.BadScope, "AADSTS70011: the scope must name one API; it names %d", len(found))
	}
	aud, ok := strings.CutSuffix(found[0], "/.default")
	if !ok || aud == "" {
		return "", problem.Errorf(problem.BadScope, "AADSTS1002012: the scope %q is not valid: client credentials need a resource identifier with /.default", problem.Clip(found[0]))
	}
	return aud, nil
}
