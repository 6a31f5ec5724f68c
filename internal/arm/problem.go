package arm

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// word is how ARM says a kind of problem.
type word struct {
	status int
	code   string
}

var words = map[problem.Kind]word{
	problem.Invalid:              {400, "InvalidRequestContent"},
	problem.MissingParameter:     {400, "InvalidRequestContent"},
	problem.MissingAPIVersion:    {400, "MissingApiVersionParameter"},
	problem.BadAPIVersion:        {400, "InvalidApiVersionParameter"},
	problem.NotSupported:         {400, "NotSupported"},
	problem.MethodNotAllowed:     {405, "MethodNotAllowed"},
	problem.TooLarge:             {413, "RequestContentTooLarge"},
	problem.Unauthenticated:      {401, "InvalidAuthenticationToken"},
	problem.TokenExpired:         {401, "ExpiredAuthenticationToken"},
	problem.WrongAudience:        {401, "InvalidAuthenticationTokenAudience"},
	problem.Revoked:              {401, "InvalidAuthenticationToken"},
	problem.Denied:               {403, "AuthorizationFailed"},
	problem.LinkedDenied:         {403, "LinkedAuthorizationFailed"},
	problem.CallerRefused:        {403, "AuthorizationFailed"},
	problem.NotFound:             {404, "ResourceNotFound"},
	problem.ParentNotFound:       {404, "ParentResourceNotFound"},
	problem.GroupNotFound:        {404, "ResourceGroupNotFound"},
	problem.SubscriptionNotFound: {404, "SubscriptionNotFound"},
	problem.UnknownType:          {404, "InvalidResourceType"},
	problem.VaultNotFound:        {404, "ResourceNotFound"},
	problem.PrincipalNotFound:    {400, "PrincipalNotFound"},
	problem.RoleNotFound:         {404, "RoleDefinitionDoesNotExist"},
	problem.IdentityNotFound:     {404, "ResourceNotFound"},
	problem.Conflict:             {409, "Conflict"},
	problem.Exists:               {409, "Conflict"},
	problem.AssignmentExists:     {409, "RoleAssignmentExists"},
	problem.Immutable:            {400, "PropertyChangeNotAllowed"},
	problem.BadIdentity:          {400, "FailedIdentityOperation"},
	problem.DeletedRecoverable:   {409, "Conflict"},
	problem.Disabled:             {409, "Conflict"},
	problem.MoveFailed:           {409, "ResourceMoveFailed"},
	problem.PreconditionFailed:   {412, "PreconditionFailed"},
	problem.BadID:                {400, "InvalidResourceId"},
	problem.BadName:              {400, "InvalidResourceName"},
	problem.BadFilter:            {400, "InvalidFilterInQueryString"},
	problem.Locked:               {409, "ScopeLocked"},
	problem.Interrupted:          {409, "OperationInterrupted"},
	problem.UnknownTenant:        {404, "TenantNotFound"},
	problem.UnknownClient:        {400, "InvalidRequestContent"},
	problem.BadCredential:        {401, "AuthenticationFailed"},
	problem.NoCredential:         {401, "AuthenticationFailed"},
	problem.UnknownAudience:      {400, "InvalidRequestContent"},
	problem.BadScope:             {400, "InvalidRequestContent"},
	problem.UnsupportedGrant:     {400, "InvalidRequestContent"},
	problem.Throttled:            {429, "TooManyRequests"},
	problem.Unavailable:          {503, "ServiceUnavailable"},
	problem.Internal:             {500, "InternalServerError"},
}

// typeWords are where ARM has another word for the resources of a type, by its
// lower-case name.
var typeWords = map[string]map[problem.Kind]word{
	typeAssignment: {
		problem.Immutable:   {400, "RoleAssignmentUpdateNotPermitted"},
		problem.BadIdentity: {400, "UnmatchedPrincipalType"}, // a principal that is not what it is called
	},
	typeDefinition: {
		problem.Exists:    {409, "RoleDefinitionWithSameNameExists"},
		problem.Immutable: {400, "RoleDefinitionHasAssignments"}, // what somebody has cannot go
	},
}

// wordOf is how ARM says the kind in answer to r.
func wordOf(r *http.Request, k problem.Kind) word {
	segs, _ := web.Path(r)
	if n := len(segs); n >= 3 {
		if w, ok := typeWords[strings.ToLower(segs[n-3]+"/"+segs[n-2])][k]; ok {
			return w
		}
	}
	return words[k]
}

// armError is ARM's error body.
type armError struct {
	Error armProblem `json:"error"`
}

type armProblem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	// Target is the part of the request that is at fault.
	Target string `json:"target,omitempty"`
	// Details are all faults, where there are several.
	Details []armProblem `json:"details,omitempty"`
}

// inARMsWords is the body of a problem.
func inARMsWords(wd word, p *problem.Error) armProblem {
	out := armProblem{Code: wd.code, Message: p.Detail, Target: p.Target}
	if len(p.More) == 0 {
		return out
	}
	all := p.More
	if p.Target != "" { // one of the faults, and not what they come to
		all = append([]*problem.Error{p}, p.More...)
		out.Message = fmt.Sprintf("%s And %d more; see details.", p.Detail, len(p.More))
	}
	for _, one := range all {
		out.Details = append(out.Details, armProblem{Code: words[one.Kind].code, Message: one.Detail, Target: one.Target})
	}
	return out
}

func (a *API) writeProblem(w http.ResponseWriter, r *http.Request, p *problem.Error) {
	wd := wordOf(r, p.Kind)
	h := w.Header()
	h.Set("X-Ms-Error-Code", wd.code)
	switch wd.status {
	case http.StatusUnauthorized:
		if r.Header.Get("Authorization") == "" {
			wd.code = "AuthenticationFailed"
			h.Set("X-Ms-Error-Code", wd.code)
		}
		h.Set("WWW-Authenticate", fmt.Sprintf(`Bearer authorization_uri="%s", error="invalid_token", error_description="%s"`, a.Names.Asked(web.HostName(r)).Login()+"/common", strings.ReplaceAll(p.Detail, `"`, "'")))
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", p.RetryAfter())
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(wd.status)
		return
	}
	_ = web.WriteJSON(w, wd.status, armError{inARMsWords(wd, p)})
}
