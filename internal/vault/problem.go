package vault

import (
	"net/http"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// words is how Key Vault says a problem.
type words struct {
	status      int
	code, inner string
}

// wordsOf has each kind. Those that a vault never meets have a line too, so that a
// new caller below cannot turn a refusal into a 500.
var wordsOf = map[problem.Kind]words{
	problem.Invalid:           {http.StatusBadRequest, "BadParameter", ""},
	problem.MissingParameter:  {http.StatusBadRequest, "BadParameter", ""},
	problem.MissingAPIVersion: {http.StatusBadRequest, "BadParameter", ""},
	problem.BadAPIVersion:     {http.StatusBadRequest, "BadParameter", ""},
	problem.NotSupported:      {http.StatusBadRequest, "BadParameter", "NotSupported"},
	problem.MethodNotAllowed:  {http.StatusMethodNotAllowed, "MethodNotAllowed", ""},
	problem.TooLarge:          {http.StatusRequestEntityTooLarge, "RequestBodyTooLarge", ""},

	problem.Unauthenticated: {http.StatusUnauthorized, "Unauthorized", ""},
	problem.TokenExpired:    {http.StatusUnauthorized, "Unauthorized", ""},
	problem.WrongAudience:   {http.StatusUnauthorized, "Unauthorized", ""},
	problem.Revoked:         {http.StatusUnauthorized, "Unauthorized", ""},
	problem.BadCredential:   {http.StatusUnauthorized, "Unauthorized", ""},
	problem.NoCredential:    {http.StatusUnauthorized, "Unauthorized", ""},
	problem.UnknownClient:   {http.StatusUnauthorized, "Unauthorized", ""},
	problem.UnknownTenant:   {http.StatusUnauthorized, "Unauthorized", ""},
	problem.UnknownAudience: {http.StatusUnauthorized, "Unauthorized", ""},

	problem.Denied:        {http.StatusForbidden, "Forbidden", "ForbiddenByRbac"},
	problem.LinkedDenied:  {http.StatusForbidden, "Forbidden", "ForbiddenByRbac"},
	problem.CallerRefused: {http.StatusForbidden, "Forbidden", "ForbiddenByPolicy"},
	problem.Disabled:      {http.StatusForbidden, "Forbidden", "SecretDisabled"},

	problem.NotFound:             {http.StatusNotFound, "SecretNotFound", ""},
	problem.ParentNotFound:       {http.StatusNotFound, "VaultNotFound", ""},
	problem.GroupNotFound:        {http.StatusNotFound, "VaultNotFound", ""},
	problem.SubscriptionNotFound: {http.StatusNotFound, "VaultNotFound", ""},
	problem.VaultNotFound:        {http.StatusNotFound, "VaultNotFound", ""},
	problem.UnknownType:          {http.StatusBadRequest, "BadParameter", ""},
	problem.PrincipalNotFound:    {http.StatusBadRequest, "BadParameter", ""},
	problem.RoleNotFound:         {http.StatusBadRequest, "BadParameter", ""},
	problem.IdentityNotFound:     {http.StatusBadRequest, "BadParameter", ""},
	problem.BadIdentity:          {http.StatusBadRequest, "BadParameter", ""},
	problem.BadScope:             {http.StatusBadRequest, "BadParameter", ""},
	problem.UnsupportedGrant:     {http.StatusBadRequest, "BadParameter", ""},
	problem.Immutable:            {http.StatusBadRequest, "BadParameter", ""},

	problem.Conflict:           {http.StatusConflict, "Conflict", ""},
	problem.Exists:             {http.StatusConflict, "Conflict", ""},
	problem.AssignmentExists:   {http.StatusConflict, "Conflict", ""},
	problem.DeletedRecoverable: {http.StatusConflict, "Conflict", "ObjectIsDeletedButRecoverable"},
	problem.MoveFailed:         {http.StatusConflict, "Conflict", ""},
	problem.PreconditionFailed: {http.StatusPreconditionFailed, "PreconditionFailed", ""},
	problem.BadID:              {http.StatusBadRequest, "BadParameter", ""},
	problem.BadName:            {http.StatusBadRequest, "BadParameter", ""},
	problem.BadFilter:          {http.StatusBadRequest, "BadParameter", ""},
	problem.Locked:             {http.StatusConflict, "Conflict", ""},
	problem.Interrupted:        {http.StatusServiceUnavailable, "ServiceUnavailable", ""},

	problem.Throttled:   {http.StatusTooManyRequests, "Throttled", ""},
	problem.Unavailable: {http.StatusServiceUnavailable, "ServiceUnavailable", ""},
	problem.Internal:    {http.StatusInternalServerError, "InternalError", ""},
}

// writeProblem is the surface's one way to refuse.
func writeProblem(w http.ResponseWriter, _ *http.Request, p *problem.Error) {
	s, ok := wordsOf[p.Kind]
	if !ok {
		s = wordsOf[problem.Internal]
	}
	if s.status == http.StatusTooManyRequests || s.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	body := ErrorResult{Error: ErrorBody{Code: s.code, Message: p.Detail}}
	if s.inner != "" {
		body.Error.InnerError = &InnerError{Code: s.inner}
	}
	w.Header().Set("Cache-Control", "no-cache")
	_ = web.WriteJSON(w, s.status, body) // of strings only: it always encodes
}
