package sts

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// word is how OAuth (RFC 6749 section 5.2) says a kind of problem; code is the
// AADSTS number where the detail does not begin with one.
type word struct {
	status int
	err    string
	code   int
}

var words = map[problem.Kind]word{
	problem.Invalid:              {400, "invalid_request", 90013},
	problem.MissingParameter:     {400, "invalid_request", 900144},
	problem.MissingAPIVersion:    {400, "invalid_request", 900144},
	problem.BadAPIVersion:        {400, "invalid_request", 90013},
	problem.NotSupported:         {400, "invalid_request", 90013},
	problem.MethodNotAllowed:     {405, "invalid_request", 900561},
	problem.TooLarge:             {413, "invalid_request", 90013},
	problem.Unauthenticated:      {401, "invalid_client", 7000218},
	problem.TokenExpired:         {401, "invalid_client", 700024},
	problem.WrongAudience:        {401, "invalid_client", 700212},
	problem.Revoked:              {401, "invalid_client", 7000112},
	problem.Denied:               {401, "unauthorized_client", 7000112},
	problem.LinkedDenied:         {401, "unauthorized_client", 7000112},
	problem.CallerRefused:        {401, "unauthorized_client", 7000112},
	problem.NotFound:             {404, "invalid_request", 900439},
	problem.ParentNotFound:       {404, "invalid_request", 900439},
	problem.GroupNotFound:        {404, "invalid_request", 900439},
	problem.SubscriptionNotFound: {404, "invalid_request", 900439},
	problem.UnknownType:          {404, "invalid_request", 900439},
	problem.VaultNotFound:        {404, "invalid_request", 900439},
	problem.PrincipalNotFound:    {400, "unauthorized_client", 700016},
	problem.RoleNotFound:         {400, "invalid_request", 90013},
	problem.IdentityNotFound:     {400, "unauthorized_client", 700016},
	problem.Conflict:             {409, "invalid_request", 90013},
	problem.Exists:               {409, "invalid_request", 90013},
	problem.AssignmentExists:     {409, "invalid_request", 90013},
	problem.Immutable:            {400, "invalid_request", 90013},
	problem.BadIdentity:          {400, "invalid_request", 90013},
	problem.DeletedRecoverable:   {409, "invalid_request", 90013},
	problem.Disabled:             {401, "unauthorized_client", 7000112},
	problem.MoveFailed:           {409, "invalid_request", 90013},
	problem.PreconditionFailed:   {412, "invalid_request", 90013},
	problem.BadID:                {400, "invalid_request", 90013},
	problem.BadName:              {400, "invalid_request", 90013},
	problem.BadFilter:            {400, "invalid_request", 90013},
	problem.Locked:               {409, "invalid_request", 90013},
	problem.Interrupted:          {503, "temporarily_unavailable", 90033},
	problem.UnknownTenant:        {400, "invalid_request", 90002},
	problem.UnknownClient:        {400, "unauthorized_client", 700016},
	problem.BadCredential:        {401, "invalid_client", 7000215},
	problem.NoCredential:         {401, "invalid_client", 7000218},
	problem.UnknownAudience:      {400, "invalid_resource", 500011},
	problem.BadScope:             {400, "invalid_scope", 70011},
	problem.UnsupportedGrant:     {400, "unsupported_grant_type", 70003},
	problem.Throttled:            {429, "temporarily_unavailable", 90055},
	problem.Unavailable:          {503, "temporarily_unavailable", 90033},
	problem.Internal:             {500, "server_error", 90020},
}

// oauthError is the error body that the field's clients parse.
type oauthError struct {
	Error         string `json:"error"`
	Description   string `json:"error_description"`
	Codes         []int  `json:"error_codes"`
	Timestamp     string `json:"timestamp"`
	TraceID       string `json:"trace_id"`
	CorrelationID string `json:"correlation_id"`
	URI           string `json:"error_uri"`
}

var aadsts = regexp.MustCompile(`^AADSTS(\d+): `)

func (s *Service) writeProblem(w http.ResponseWriter, r *http.Request, p *problem.Error) {
	wd := words[p.Kind]
	detail := p.Detail
	if m := aadsts.FindStringSubmatch(detail); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			wd.code = n
		}
	} else {
		detail = fmt.Sprintf("AADSTS%d: %s", wd.code, detail)
	}
	// Clients know an unknown tenant by another word in the discovery document.
	if p.Kind == problem.UnknownTenant && strings.Contains(r.URL.Path, "/.well-known/") {
		wd.err = "invalid_tenant"
	}
	if p.Kind == problem.UnknownTenant && wd.code == 50049 {
		wd.err = "invalid_instance"
	}
	trace := web.RequestID(r.Context())
	corr := r.Header.Get("Client-Request-Id")
	if corr == "" {
		corr = r.URL.Query().Get("client-request-id") // JavaScript clients
	}
	if _, err := uuid.Parse(corr); err != nil {
		corr = trace
	}
	at := s.Now().UTC().Format("2006-01-02 15:04:05Z")
	if wd.status >= http.StatusInternalServerError || wd.status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1") // without it, JavaScript clients stay away for a minute
	}
	_ = web.WriteJSON(w, wd.status, oauthError{
		Error: wd.err, Codes: []int{wd.code}, Timestamp: at, TraceID: trace, CorrelationID: corr,
		Description: fmt.Sprintf("%s\r\nTrace ID: %s\r\nCorrelation ID: %s\r\nTimestamp: %s", detail, trace, corr, at),
		URI:         fmt.Sprintf("%s/error?code=%d", s.Names.Asked(web.HostName(r)).Login(), wd.code),
	})
}
