package metadata

import (
	"net/http"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/problem"
)

// The two shapes of the App Service endpoint. 2017-09-01 is spoken by current
// clients only where they take it for Azure ML, and then they need a number in
// expires_on, not the date that the old service wrote.
const (
	appService2017 = "2017-09-01"
	appService2019 = "2019-08-01"
)

const identityNotFound = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."

// PathAppService is the path of IDENTITY_ENDPOINT.
const PathAppService = "/msi/token"

// appService serves App Service's, Functions' and Container Apps' endpoint:
//
//	GET /msi/token?api-version=2019-08-01&resource=...     X-IDENTITY-HEADER: {secret}
//	GET /msi/token?api-version=2017-09-01&resource=...     secret: {secret}
//
// The secret is one start's; nobody is found by the connection.
type appService struct {
	Agent
	queries queries
}

// AppService returns the handler of the door behind IDENTITY_ENDPOINT.
func AppService(a Agent) http.Handler {
	d := &appService{Agent: a}
	return d.observed("appservice", d.serve)
}

func (d *appService) serve(ev *Event, w http.ResponseWriter, r *http.Request) {
	id := begin(w)
	body, err := d.answer(ev, r)
	if err == nil {
		write(w, http.StatusOK, body)
		return
	}
	p := problem.Of(err)
	ev.failed("appservice", id, p)
	status, words := appServiceError(p, id)
	refusal(w, r, status)
	write(w, status, words)
}

// appServiceToken is the answer, in both versions.
type appServiceToken struct {
	AccessToken string `json:"access_token"`
	ClientID    string `json:"client_id"`
	ExpiresIn   int64  `json:"expires_in,string"`
	ExpiresOn   int64  `json:"expires_on,string"`
	Resource    string `json:"resource"`
	TokenType   string `json:"token_type"`
}

func (d *appService) answer(ev *Event, r *http.Request) (any, error) {
	path, err := path(r)
	if err != nil {
		return nil, err
	}
	if path != PathAppService {
		return nil, problem.Errorf(problem.UnknownType, "Not found")
	}
	if err := get(r); err != nil {
		return nil, err
	}
	if err := guard(r); err != nil {
		return nil, err
	}
	if err := bodyless(r); err != nil {
		return nil, err
	}
	q, queryErr := d.queries.parse(r.URL.RawQuery, appServiceVersion)
	header := "X-IDENTITY-HEADER"
	if q.APIVersion == appService2017 {
		header = "secret"
	}
	// Who has no secret is not told what is wrong with the rest.
	secret, ok := one(r, header)
	if !ok {
		return nil, problem.Errorf(problem.Unauthenticated, "Header '%s' is required once", header)
	}
	c, err := d.started(r, ev, secret)
	if err != nil {
		return nil, err
	}
	if queryErr != nil {
		return nil, queryErr
	}
	tok, err := d.token(r.Context(), ev, c, q)
	if err != nil {
		return nil, err
	}
	return &appServiceToken{
		AccessToken: tok.AccessToken, ClientID: tok.ClientID,
		ExpiresIn: remaining(tok.Expires, d.Now()), ExpiresOn: tok.Expires.Unix(),
		Resource: q.Resource, TokenType: "Bearer",
	}, nil
}

// appServiceVersion takes 2017-09-01, and 2019-08-01 and what came after it.
func appServiceVersion(s string) error {
	if s == appService2017 {
		return nil
	}
	t, err := date(s)
	if err != nil {
		return err
	}
	if t.Before(time.Date(2019, 8, 1, 0, 0, 0, 0, time.UTC)) {
		return problem.Errorf(problem.BadAPIVersion, "Query variable 'api-version' must be %s or %s", appService2019, appService2017)
	}
	return nil
}

type appServiceProblem struct {
	StatusCode    int    `json:"statusCode"`
	Message       string `json:"message"`
	CorrelationID string `json:"correlationId"`
}

// appServiceError puts a problem in the dialect's words.
func appServiceError(p *problem.Error, id string) (int, appServiceProblem) {
	status, message := Status(p.Kind), p.Detail
	switch p.Kind {
	case problem.IdentityNotFound:
		// The first sentence is the real service's and clients look for it;
		// the rest says what to do.
		message = strings.TrimSpace(identityNotFound + " " + strings.TrimPrefix(p.Detail, identityNotFound))
	case problem.UnknownAudience:
		message = aadsts500011(p.Detail)
	}
	return status, appServiceProblem{status, message, id}
}

// Status is the HTTP status of a problem where the dialect has no words of its
// own: App Service's endpoint and the agent's control socket.
func Status(k problem.Kind) int {
	if s, ok := statusTable[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// statusTable has every kind. UnknownType is here a path that does not exist.
var statusTable = map[problem.Kind]int{
	problem.Invalid:           http.StatusBadRequest,
	problem.MissingParameter:  http.StatusBadRequest,
	problem.MissingAPIVersion: http.StatusBadRequest,
	problem.BadAPIVersion:     http.StatusBadRequest,
	problem.NotSupported:      http.StatusBadRequest,
	problem.MethodNotAllowed:  http.StatusMethodNotAllowed,
	problem.TooLarge:          http.StatusRequestEntityTooLarge,

	problem.Unauthenticated: http.StatusUnauthorized,
	problem.TokenExpired:    http.StatusUnauthorized,
	problem.WrongAudience:   http.StatusUnauthorized,
	problem.Revoked:         http.StatusForbidden,

	problem.Denied:        http.StatusForbidden,
	problem.LinkedDenied:  http.StatusForbidden,
	problem.CallerRefused: http.StatusForbidden,

	problem.NotFound:             http.StatusBadRequest,
	problem.ParentNotFound:       http.StatusBadRequest,
	problem.GroupNotFound:        http.StatusBadRequest,
	problem.SubscriptionNotFound: http.StatusBadRequest,
	problem.UnknownType:          http.StatusNotFound,
	problem.VaultNotFound:        http.StatusBadRequest,
	problem.PrincipalNotFound:    http.StatusBadRequest,
	problem.RoleNotFound:         http.StatusBadRequest,
	problem.IdentityNotFound:     http.StatusBadRequest,

	problem.Conflict:           http.StatusBadRequest,
	problem.Exists:             http.StatusBadRequest,
	problem.AssignmentExists:   http.StatusBadRequest,
	problem.Immutable:          http.StatusBadRequest,
	problem.BadIdentity:        http.StatusBadRequest,
	problem.DeletedRecoverable: http.StatusBadRequest,
	problem.Disabled:           http.StatusForbidden,
	problem.MoveFailed:         http.StatusBadRequest,
	problem.PreconditionFailed: http.StatusBadRequest,
	problem.BadID:              http.StatusBadRequest, problem.BadName: http.StatusBadRequest, problem.BadFilter: http.StatusBadRequest,
	problem.Locked: http.StatusBadRequest, problem.Interrupted: http.StatusServiceUnavailable,

	problem.UnknownTenant:    http.StatusBadRequest,
	problem.UnknownClient:    http.StatusBadRequest,
	problem.BadCredential:    http.StatusUnauthorized,
	problem.NoCredential:     http.StatusUnauthorized,
	problem.UnknownAudience:  http.StatusBadRequest,
	problem.BadScope:         http.StatusBadRequest,
	problem.UnsupportedGrant: http.StatusBadRequest,

	problem.Throttled:   http.StatusTooManyRequests,
	problem.Unavailable: http.StatusServiceUnavailable,
	problem.Internal:    http.StatusInternalServerError,
}
