package graph

import (
	"net/http"
	"time"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// word is how Graph says a kind of problem.
type word struct {
	status int
	code   string
}

var words = map[problem.Kind]word{
	problem.Invalid:              {400, "Request_BadRequest"},
	problem.MissingParameter:     {400, "Request_BadRequest"},
	problem.MissingAPIVersion:    {400, "Request_BadRequest"},
	problem.BadAPIVersion:        {400, "Request_BadRequest"},
	problem.BadID:                {400, "Request_BadRequest"},
	problem.BadName:              {400, "Request_BadRequest"},
	problem.BadFilter:            {400, "Request_UnsupportedQuery"},
	problem.NotSupported:         {400, "Request_UnsupportedQuery"},
	problem.Locked:               {409, "Request_BadRequest"},
	problem.MoveFailed:           {409, "Request_BadRequest"},
	problem.Interrupted:          {409, "Request_BadRequest"},
	problem.MethodNotAllowed:     {405, "Request_BadRequest"},
	problem.TooLarge:             {413, "Request_BadRequest"},
	problem.Unauthenticated:      {401, "InvalidAuthenticationToken"},
	problem.TokenExpired:         {401, "InvalidAuthenticationToken"},
	problem.WrongAudience:        {401, "InvalidAuthenticationToken"},
	problem.Revoked:              {401, "InvalidAuthenticationToken"},
	problem.Denied:               {403, "Authorization_RequestDenied"},
	problem.LinkedDenied:         {403, "Authorization_RequestDenied"},
	problem.CallerRefused:        {403, "Authorization_RequestDenied"},
	problem.NotFound:             {404, "Request_ResourceNotFound"},
	problem.ParentNotFound:       {404, "Request_ResourceNotFound"},
	problem.GroupNotFound:        {404, "Request_ResourceNotFound"},
	problem.SubscriptionNotFound: {404, "Request_ResourceNotFound"},
	problem.UnknownType:          {404, "Request_ResourceNotFound"},
	problem.VaultNotFound:        {404, "Request_ResourceNotFound"},
	problem.PrincipalNotFound:    {404, "Request_ResourceNotFound"},
	problem.RoleNotFound:         {404, "Request_ResourceNotFound"},
	problem.IdentityNotFound:     {404, "Request_ResourceNotFound"},
	problem.Conflict:             {409, "Request_MultipleObjectsWithSameKeyValue"},
	problem.Exists:               {409, "Request_MultipleObjectsWithSameKeyValue"},
	problem.AssignmentExists:     {409, "Request_MultipleObjectsWithSameKeyValue"},
	problem.Immutable:            {400, "Request_BadRequest"},
	problem.BadIdentity:          {400, "Request_BadRequest"},
	problem.DeletedRecoverable:   {409, "Request_MultipleObjectsWithSameKeyValue"},
	problem.Disabled:             {409, "Request_BadRequest"},
	problem.PreconditionFailed:   {412, "Request_PreconditionFailed"},
	problem.UnknownTenant:        {404, "Request_ResourceNotFound"},
	problem.UnknownClient:        {404, "Request_ResourceNotFound"},
	problem.BadCredential:        {401, "InvalidAuthenticationToken"},
	problem.NoCredential:         {401, "InvalidAuthenticationToken"},
	problem.UnknownAudience:      {400, "Request_BadRequest"},
	problem.BadScope:             {400, "Request_BadRequest"},
	problem.UnsupportedGrant:     {400, "Request_BadRequest"},
	problem.Throttled:            {429, "TooManyRequests"},
	problem.Unavailable:          {503, "ServiceUnavailable"},
	problem.Internal:             {500, "Service_InternalServerError"},
}

// graphError is Graph's error body.
type graphError struct {
	Error errorBody `json:"error"`
}

type errorBody struct {
	Code       string     `json:"code"`
	Message    string     `json:"message"`
	InnerError innerError `json:"innerError"`
}

type innerError struct {
	Date            string `json:"date"`
	RequestID       string `json:"request-id"`
	ClientRequestID string `json:"client-request-id"`
}

// identify says which request is answered, as Graph's clients look for it. A
// client that gave no id of its own is given ours as if it had.
func identify(w http.ResponseWriter, r *http.Request) (client string) {
	h := w.Header()
	h.Set("Request-Id", web.RequestID(r.Context()))
	if client = h.Get("Client-Request-Id"); client == "" {
		client = web.RequestID(r.Context())
		h.Set("Client-Request-Id", client)
	}
	return client
}

func (g *Graph) writeProblem(w http.ResponseWriter, r *http.Request, p *problem.Error) {
	wd := words[p.Kind]
	client := identify(w, r)
	switch wd.status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="", authorization_uri="`+g.Names.Asked(web.HostName(r)).Login()+`/common/oauth2/authorize"`)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", p.RetryAfter())
	}
	detail := p.Detail
	if wd.status == http.StatusForbidden { // in Graph's words: by whom or for what is in the record
		detail = denied().Detail
	}
	_ = web.WriteJSON(w, wd.status, graphError{errorBody{
		Code: wd.code, Message: detail,
		InnerError: innerError{Date: g.Now().UTC().Format(time.DateOnly + "T15:04:05"), RequestID: web.RequestID(r.Context()), ClientRequestID: client},
	}})
}
