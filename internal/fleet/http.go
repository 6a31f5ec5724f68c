package fleet

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// Handler serves fleet.{domain}: see package fleetapi for the messages.
func (f *Fleet) Handler(log *slog.Logger) http.Handler {
	s := &web.Surface{Name: "fleet", Log: log, Write: writeProblem}
	mux := http.NewServeMux()
	mux.Handle("POST "+fleetapi.PathEnrol, s.Handle(func(w http.ResponseWriter, r *http.Request) error {
		var req fleetapi.EnrolRequest
		if err := web.ReadJSON(r, &req); err != nil {
			return err
		}
		if req.Token == "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			out, err := f.EnrolKnown(r.Context(), r.TLS.PeerCertificates, req)
			return answer(w, out, err)
		}
		out, err := f.Enrol(r.Context(), req)
		return answer(w, out, err)
	}))
	as := func(h func(http.ResponseWriter, *http.Request, Host) error) http.Handler {
		return s.Handle(func(w http.ResponseWriter, r *http.Request) error {
			if r.TLS == nil {
				return problem.Errorf(problem.Unauthenticated, "the agents' API is served over TLS alone")
			}
			host, err := f.Authenticate(r.Context(), r.TLS.PeerCertificates)
			if err != nil {
				return err
			}
			if r.Method == http.MethodGet {
				return h(w, r, host)
			}
			// A body can take its time. Who was evicted meanwhile is out.
			if err := web.Buffer(r); err != nil {
				return err
			}
			if host, err = f.Authenticate(r.Context(), r.TLS.PeerCertificates); err != nil {
				return err
			}
			return h(w, r, host)
		})
	}
	mux.Handle("POST "+fleetapi.PathRenew, as(func(w http.ResponseWriter, r *http.Request, h Host) error {
		var req fleetapi.RenewRequest
		if err := web.ReadJSON(r, &req); err != nil {
			return err
		}
		out, err := f.Renew(r.Context(), h, serial(r), req)
		return answer(w, out, err)
	}))
	mux.Handle("GET "+fleetapi.PathPlacements, as(func(w http.ResponseWriter, r *http.Request, h Host) error {
		out, err := f.Placements(r.Context(), h)
		return answer(w, out, err)
	}))
	mux.Handle("POST "+fleetapi.PathToken, as(func(w http.ResponseWriter, r *http.Request, h Host) error {
		var req fleetapi.TokenRequest
		if err := web.ReadJSON(r, &req); err != nil {
			return err
		}
		out, err := f.Token(r.Context(), h, req)
		return answer(w, out, err)
	}))
	mux.Handle("POST "+fleetapi.PathInstance, as(func(w http.ResponseWriter, r *http.Request, h Host) error {
		var req fleetapi.InstanceRequest
		if err := web.ReadJSON(r, &req); err != nil {
			return err
		}
		out, err := f.Instance(r.Context(), h, req)
		return answer(w, out, err)
	}))
	mux.Handle("POST "+fleetapi.PathAttest, as(func(w http.ResponseWriter, r *http.Request, h Host) error {
		var req fleetapi.AttestRequest
		if err := web.ReadJSON(r, &req); err != nil {
			return err
		}
		out, err := f.Attest(r.Context(), h, req)
		return answer(w, out, err)
	}))
	mux.Handle("POST "+fleetapi.PathEvents, as(func(w http.ResponseWriter, r *http.Request, h Host) error {
		var req fleetapi.EventsRequest
		if err := web.ReadJSON(r, &req); err != nil {
			return err
		}
		if err := f.Events(r.Context(), h, req); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}))
	mux.Handle("GET "+fleetapi.PathChanges, as(f.serveChanges))
	mux.Handle("/", s.Handle(func(_ http.ResponseWriter, r *http.Request) error {
		return problem.Errorf(problem.NotFound, "there is no %s %s", r.Method, r.URL.Path)
	}))
	return mux
}

func answer(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	return web.WriteJSON(w, http.StatusOK, v)
}

// serial is that of the certificate that an authenticated host shows.
func serial(r *http.Request) string { return r.TLS.PeerCertificates[0].SerialNumber.Text(16) }

// sendTimeout is how long an agent may take to read a line of its stream.
const sendTimeout = 10 * time.Second

func (f *Fleet) serveChanges(w http.ResponseWriter, r *http.Request, h Host) error {
	after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64)
	if err != nil || after < 0 {
		return problem.Errorf(problem.Invalid, "the query parameter after is not a revision")
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	enc, ctl := json.NewEncoder(w), http.NewResponseController(w)
	begun := false
	err = f.Changes(r.Context(), h, serial(r), after, func(c fleetapi.Change) error {
		begun = true
		_ = ctl.SetWriteDeadline(time.Now().Add(sendTimeout)) // the wall clock: a socket's, not ours
		if err := enc.Encode(c); err != nil {
			return err
		}
		return ctl.Flush()
	})
	if err != nil && r.Context().Err() == nil {
		f.Log.InfoContext(r.Context(), "change stream ended", "host", h.ID.String(), "err", err)
	}
	if !begun && err != nil {
		return err
	}
	// The stream has begun: its end is all that can still be said.
	panic(http.ErrAbortHandler)
}

// statuses are the HTTP statuses of the kinds; the agent goes by the kind.
var statuses = map[problem.Kind]int{
	problem.Invalid: 400, problem.MissingParameter: 400, problem.MissingAPIVersion: 400, problem.BadAPIVersion: 400,
	problem.NotSupported: 400, problem.MethodNotAllowed: 405, problem.TooLarge: 413,
	problem.Unauthenticated: 401, problem.TokenExpired: 401, problem.WrongAudience: 401, problem.Revoked: 401,
	problem.Denied: 403, problem.LinkedDenied: 403, problem.CallerRefused: 403,
	problem.NotFound: 404, problem.ParentNotFound: 404, problem.GroupNotFound: 404, problem.SubscriptionNotFound: 404,
	problem.UnknownType: 404, problem.VaultNotFound: 404, problem.PrincipalNotFound: 404, problem.RoleNotFound: 404,
	problem.IdentityNotFound: 404, problem.Conflict: 409, problem.Exists: 409, problem.AssignmentExists: 409,
	problem.Immutable: 409, problem.BadIdentity: 400, problem.DeletedRecoverable: 409, problem.Disabled: 403,
	problem.BadID: 400, problem.BadName: 400, problem.BadFilter: 400, problem.Locked: 409, problem.Interrupted: 409,
	problem.MoveFailed: 409, problem.PreconditionFailed: 412, problem.UnknownTenant: 404, problem.UnknownClient: 400, problem.BadCredential: 401,
	problem.NoCredential: 401, problem.UnknownAudience: 400, problem.BadScope: 400, problem.UnsupportedGrant: 400,
	problem.Throttled: 429, problem.Unavailable: 503, problem.Internal: 500,
}

func writeProblem(w http.ResponseWriter, _ *http.Request, p *problem.Error) {
	_ = web.WriteJSON(w, statuses[p.Kind], fleetapi.Error{Kind: string(p.Kind), Detail: p.Detail})
}
