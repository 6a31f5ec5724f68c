package metadata

import (
	"net/http"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// ServerIMDS is the Server header of every IMDS answer. Newer clients look for
// "IMDS" in it before they believe that they speak to one.
const ServerIMDS = "IMDS/150.870.65.1854"

// imds serves the instance metadata service:
//
//	GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=...
//	GET /metadata/identity/info?api-version=2018-02-01
//	GET /metadata/instance[/compute/...]?api-version=2021-02-01[&format=text]
//	GET /metadata/attested/document?api-version=2020-09-01[&nonce=...]
//	GET /metadata/scheduledevents?api-version=2020-07-01
//	GET /metadata/versions
//	Metadata: true
//
// Whoever was placed may know what it is; only a token is subject to caller
// rules, for it alone gives rights.
type imds struct {
	Agent
	// name is the dialect's, for the log.
	name string
	// token answers a request for a token.
	token   func(ev *Event, w http.ResponseWriter, r *http.Request) (any, error)
	queries queries
}

// IMDS returns the handler of an IMDS door.
func IMDS(a Agent) http.Handler {
	d := &imds{Agent: a, name: "imds"}
	d.token = d.imdsToken
	return d.observed(d.name, d.serve)
}

func (d *imds) serve(ev *Event, w http.ResponseWriter, r *http.Request) {
	w.Header()["Server"] = ofIMDS
	id := begin(w)
	path, err := path(r)
	var body any
	if err == nil {
		body, err = d.answer(ev, w, r, path)
	}
	if err == nil {
		write(w, http.StatusOK, body)
		return
	}
	p := problem.Of(err)
	ev.failed(d.name, id, p)
	status, words := imdsWords(path, p)
	refusal(w, r, status)
	write(w, status, words)
}

// The paths. Everything below pathInstance is one document's.
const (
	pathToken    = "/metadata/identity/oauth2/token"
	pathInfo     = "/metadata/identity/info"
	pathVersions = "/metadata/versions"
	pathInstance = "/metadata/instance"
	pathAttested = "/metadata/attested/document"
	pathEvents   = "/metadata/scheduledevents"
)

func (d *imds) answer(ev *Event, w http.ResponseWriter, r *http.Request, path string) (any, error) {
	// An unknown path is 404 before anything else: clients probe for newer
	// endpoints without the header and take 400 for a yes. So is the path of
	// load balancers, of which there are none.
	document, below := path, ""
	if rest, ok := strings.CutPrefix(path, pathInstance+"/"); ok {
		document, below = pathInstance, rest
	}
	switch document {
	case pathToken, pathInfo, pathVersions, pathInstance, pathAttested, pathEvents:
	default:
		return nil, problem.Errorf(problem.UnknownType, "Not found")
	}
	if err := asked(r); err != nil {
		return nil, err
	}
	switch document {
	case pathToken:
		return d.token(ev, w, r)
	case pathInfo:
		return d.info(ev, r)
	case pathInstance:
		return d.instance(ev, r, below)
	case pathAttested:
		return d.attested(ev, r)
	case pathEvents:
		return d.events(ev, r)
	}
	return imdsVersions{imdsKnown}, nil
}

// asked refuses what is no plain request of a local program that knows what
// it asks.
func asked(r *http.Request) error {
	if err := get(r); err != nil {
		return err
	}
	if err := guard(r); err != nil {
		return err
	}
	if err := bodyless(r); err != nil {
		return err
	}
	return marked(r)
}

// marked asks for the header that no browser and no proxy adds by itself.
func marked(r *http.Request) error {
	if v, ok := one(r, "Metadata"); !ok || !strings.EqualFold(v, "true") {
		return problem.Errorf(problem.Invalid, "Required metadata header not specified")
	}
	return nil
}

// imdsToken is the answer; members in alphabetical order, numbers as strings:
// each has a client that accepts nothing else.
type imdsToken struct {
	AccessToken  string `json:"access_token"`
	ClientID     string `json:"client_id"`
	ExpiresIn    int64  `json:"expires_in,string"`
	ExpiresOn    int64  `json:"expires_on,string"`
	ExtExpiresIn int64  `json:"ext_expires_in,string"`
	NotBefore    int64  `json:"not_before,string"`
	Resource     string `json:"resource"`
	TokenType    string `json:"token_type"`
}

func (d *imds) imdsToken(ev *Event, _ http.ResponseWriter, r *http.Request) (any, error) {
	q, err := d.queries.parse(r.URL.RawQuery, imdsVersion)
	if err != nil {
		return nil, err
	}
	c, err := d.place(r, ev)
	if err != nil {
		return nil, err
	}
	tok, err := d.Agent.token(r.Context(), ev, c, q)
	if err != nil {
		return nil, err
	}
	return d.tokenBody(tok, q), nil
}

func (a *Agent) tokenBody(tok *fleetapi.TokenResponse, q *Query) *imdsToken {
	left := remaining(tok.Expires, a.Now())
	return &imdsToken{
		AccessToken: tok.AccessToken, ClientID: tok.ClientID,
		ExpiresIn: left, ExpiresOn: tok.Expires.Unix(), ExtExpiresIn: left, NotBefore: tok.NotBefore.Unix(),
		Resource: q.Resource, TokenType: "Bearer",
	}
}

// imdsVersion takes every date since the token endpoint began: hand-written
// clients send all of them.
func imdsVersion(s string) error {
	t, err := date(s)
	if err != nil {
		return err
	}
	if t.Before(time.Date(2018, 2, 1, 0, 0, 0, 0, time.UTC)) {
		return problem.Errorf(problem.BadAPIVersion, "Query variable 'api-version' must be 2018-02-01 or later")
	}
	return nil
}

type imdsVersions struct {
	APIVersions []string `json:"apiVersions"`
}

// imdsKnown are the published versions.
var imdsKnown = []string{
	"2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04",
	"2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01",
	"2021-01-01", "2021-02-01", "2021-03-01", "2021-05-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13",
	"2023-07-01", "2023-11-15",
}

// imdsWords puts a problem in the words of the document at path.
func imdsWords(path string, p *problem.Error) (int, any) {
	for _, document := range []string{pathInstance, pathVersions, pathAttested, pathEvents} {
		if path == document || strings.HasPrefix(path, document+"/") {
			return documentError(p)
		}
	}
	return imdsError(p)
}

type imdsProblem struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// imdsError puts a problem in the dialect's words.
func imdsError(p *problem.Error) (int, any) {
	row, ok := imdsTable[p.Kind]
	if !ok {
		row = imdsTable[problem.Internal]
	}
	detail := p.Detail
	switch p.Kind {
	case problem.IdentityNotFound:
		detail = "Identity not found" // clients compare it
	case problem.UnknownAudience:
		detail = aadsts500011(detail)
	}
	return row.status, imdsProblem{row.code, detail}
}

// aadsts500011 begins the detail of an unknown audience as clients expect it.
func aadsts500011(detail string) string {
	if strings.HasPrefix(detail, "AADSTS500011") {
		return detail
	}
	return "AADSTS500011: " + detail
}

// imdsTable is the dialect's word for every kind of problem. Permanent
// failures are 400, 401 or 403: the SDKs retry 404, 410, 429 and 5xx for a
// minute or more. UnknownType is here a path that does not exist.
var imdsTable = map[problem.Kind]struct {
	status int
	code   string
}{
	problem.Invalid:           {http.StatusBadRequest, "invalid_request"},
	problem.MissingParameter:  {http.StatusBadRequest, "invalid_request"},
	problem.MissingAPIVersion: {http.StatusBadRequest, "invalid_request"},
	problem.BadAPIVersion:     {http.StatusBadRequest, "invalid_request"},
	problem.NotSupported:      {http.StatusBadRequest, "invalid_request"},
	problem.MethodNotAllowed:  {http.StatusMethodNotAllowed, "invalid_request"},
	problem.TooLarge:          {http.StatusRequestEntityTooLarge, "invalid_request"},

	problem.Unauthenticated: {http.StatusUnauthorized, "unknown_source"},
	problem.TokenExpired:    {http.StatusUnauthorized, "unknown_source"},
	problem.WrongAudience:   {http.StatusUnauthorized, "unknown_source"},
	problem.Revoked:         {http.StatusForbidden, "access_denied"},

	problem.Denied:        {http.StatusForbidden, "access_denied"},
	problem.LinkedDenied:  {http.StatusForbidden, "access_denied"},
	problem.CallerRefused: {http.StatusForbidden, "access_denied"},

	problem.NotFound:             {http.StatusBadRequest, "invalid_request"},
	problem.ParentNotFound:       {http.StatusBadRequest, "invalid_request"},
	problem.GroupNotFound:        {http.StatusBadRequest, "invalid_request"},
	problem.SubscriptionNotFound: {http.StatusBadRequest, "invalid_request"},
	problem.UnknownType:          {http.StatusNotFound, "not_found"},
	problem.VaultNotFound:        {http.StatusBadRequest, "invalid_request"},
	problem.PrincipalNotFound:    {http.StatusBadRequest, "invalid_request"},
	problem.RoleNotFound:         {http.StatusBadRequest, "invalid_request"},
	problem.IdentityNotFound:     {http.StatusBadRequest, "invalid_request"},

	problem.Conflict:           {http.StatusBadRequest, "invalid_request"},
	problem.Exists:             {http.StatusBadRequest, "invalid_request"},
	problem.AssignmentExists:   {http.StatusBadRequest, "invalid_request"},
	problem.Immutable:          {http.StatusBadRequest, "invalid_request"},
	problem.BadIdentity:        {http.StatusBadRequest, "invalid_request"},
	problem.DeletedRecoverable: {http.StatusBadRequest, "invalid_request"},
	problem.Disabled:           {http.StatusForbidden, "unauthorized_client"},
	problem.MoveFailed:         {http.StatusBadRequest, "invalid_request"},
	problem.PreconditionFailed: {http.StatusBadRequest, "invalid_request"},
	problem.BadID:              {http.StatusBadRequest, "invalid_request"},
	problem.BadName:            {http.StatusBadRequest, "invalid_request"},
	problem.BadFilter:          {http.StatusBadRequest, "invalid_request"},
	problem.Locked:             {http.StatusBadRequest, "invalid_request"},
	problem.Interrupted:        {http.StatusServiceUnavailable, "service_unavailable"},

	problem.UnknownTenant:    {http.StatusBadRequest, "invalid_request"},
	problem.UnknownClient:    {http.StatusBadRequest, "unauthorized_client"},
	problem.BadCredential:    {http.StatusUnauthorized, "unauthorized_client"},
	problem.NoCredential:     {http.StatusUnauthorized, "unauthorized_client"},
	problem.UnknownAudience:  {http.StatusBadRequest, "invalid_resource"},
	problem.BadScope:         {http.StatusBadRequest, "invalid_resource"},
	problem.UnsupportedGrant: {http.StatusBadRequest, "invalid_request"},

	problem.Throttled:   {http.StatusTooManyRequests, "too_many_requests"},
	problem.Unavailable: {http.StatusServiceUnavailable, "temporarily_unavailable"},
	problem.Internal:    {http.StatusInternalServerError, "unknown"},
}
