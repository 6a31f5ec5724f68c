package agent

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// The control socket speaks HTTP:
//
//	POST /starts  StartRequest -> StartResponse, and then the connection stays open
//	GET  /status               -> Status
//	GET  /explain?pid=N[&door=NAME][&workload=ID][&resource=AUDIENCE][&identity=ID] -> Explanation
//
// Errors are a [fleetapi.Error]. Read a StartResponse with a JSON decoder, not
// to the end of the body: the body ends when the start does. Closing the
// connection ends the start, so that a program's secret dies with whoever
// started it, however that happens.

// StartRequest asks for the secret of one start.
type StartRequest struct {
	// Resource is the resource ID that the program is.
	Resource string `json:"resource"`
	// Stay leaves the process that asks in its control group, for one that is
	// the resource for a moment alone: it goes on as what it was. The start has
	// its secret, and is nobody at 169.254.169.254.
	Stay bool `json:"stay,omitempty"`
}

// StartResponse is what a started program is given in its environment.
type StartResponse struct {
	// Endpoint is IDENTITY_ENDPOINT, http://127.0.0.1:P/msi/token.
	Endpoint string `json:"endpoint"`
	// Header is IDENTITY_HEADER, the secret.
	Header string `json:"header"`
	// IMDS is AZURE_POD_IDENTITY_AUTHORITY_HOST, http://127.0.0.1:Q, where a
	// door answers any local caller as the same resource; else empty.
	IMDS string `json:"imds"`
	// Captured says that 169.254.169.254 answers the program as the same
	// resource, by the kernel's word that it is in the start's control group:
	// none of the variables is needed, and the secret is good in the group alone.
	Captured bool `json:"captured,omitempty"`
}

// Status is what an agent says of itself.
type Status struct {
	Host string `json:"host"`
	// Connected says that the change stream is there and has spoken.
	Connected bool  `json:"connected"`
	Revision  int64 `json:"revision"`
	// AgeMS is how long ago the stream last spoke, in milliseconds; -1 if it
	// is not connected.
	AgeMS int64        `json:"ageMs"`
	Doors []DoorStatus `json:"doors"`
	// App is where the App Service dialect is spoken.
	App string `json:"app"`
	// Evidence is how it is found out who connects: "kernel", written down by
	// the kernel at the connect, or "after-the-fact", asked for after it.
	Evidence string `json:"evidence"`
	// Offline is what is done while the control plane is away, "serve" or
	// "refuse".
	Offline string `json:"offline"`
	// JournalBytes of the record wait to be shipped; with JournalLimit no new
	// caller is answered.
	JournalBytes int64 `json:"journalBytes"`
	JournalLimit int64 `json:"journalLimit"`
	// CertificateExpires is when the host's certificate ends; it is renewed at
	// half of its life, and RenewAt is when that is.
	CertificateExpires time.Time `json:"certificateExpires"`
	RenewAt            time.Time `json:"renewAt"`
	Starts             int       `json:"starts"`
	Tokens             int       `json:"tokens"`
}

// DoorStatus is one IMDS door.
type DoorStatus struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	Addr string `json:"addr"`
	// Captured is the address whose connections are sent to this door,
	// 169.254.169.254:80; empty if none are.
	Captured string `json:"captured,omitempty"`
	// Shut is why it is shut; empty while it is open.
	Shut string `json:"shut,omitempty"`
}

func (a *Agent) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /starts", a.controlRoute(a.serveStart))
	mux.Handle("GET /status", a.controlRoute(func(w http.ResponseWriter, _ *http.Request) error {
		return json.NewEncoder(w).Encode(a.Status())
	}))
	mux.Handle("GET /explain", a.controlRoute(a.serveExplain))
	mux.Handle("/", a.controlRoute(func(_ http.ResponseWriter, r *http.Request) error {
		return problem.Errorf(problem.UnknownType, "there is no %s %s here; POST /starts, GET /status and GET /explain are", r.Method, r.URL.Path)
	}))
	return mux
}

// controlRoute is the only place where an error becomes an answer.
func (a *Agent) controlRoute(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		err := h(w, r)
		if err == nil {
			return
		}
		a.log.Info("control request refused", "route", r.Pattern, "kind", string(problem.Of(err).Kind), "err", err)
		a.controlProblem(w, err)
	})
}

func (a *Agent) controlProblem(w http.ResponseWriter, err error) {
	p := problem.Of(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(metadata.Status(p.Kind))
	_ = json.NewEncoder(w).Encode(fleetapi.Error{Kind: string(p.Kind), Detail: p.Detail})
}

func (a *Agent) serveStart(w http.ResponseWriter, r *http.Request) error {
	ev, err := door.Caller(r.Context())
	if err != nil {
		return &problem.Error{Kind: problem.CallerRefused, Detail: "this caller could not be identified", Err: err}
	}
	req, err := readStart(r)
	if err != nil {
		return err
	}
	control := http.NewResponseController(w)
	// The body's deadline would end the wait below.
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	st, err := a.permitStart(r.Context(), req.Resource, ev, "")
	if err != nil {
		return err
	}
	if err := a.starts.room(st); err != nil {
		return err
	}
	if !req.Stay {
		if err := a.group(r.Context(), st); err != nil {
			return err
		}
	}
	header, release, err := a.starts.add(st)
	if err != nil {
		if st.group != nil {
			go a.removeGroup(st.group)
		}
		return err
	}
	a.holding.Add(1) // before the connection is no longer the door's to wait for
	defer a.holding.Done()
	resp := StartResponse{Endpoint: "http://" + a.AppAddr() + metadata.PathAppService, Header: header, IMDS: a.imdsFor(req.Resource, ev), Captured: st.group != nil}
	conn, err := answerAndKeep(w, control, resp)
	if err != nil {
		release()
		return nil // gone already, and so is the start
	}
	a.starts.hold(conn, header, release)
	return nil
}

// answerAndKeep writes an answer that ends with its connection, and takes the
// connection over: it is no longer net/http's, and can be handed to the
// process that takes this one's place.
func answerAndKeep(w http.ResponseWriter, control *http.ResponseController, answer any) (net.Conn, error) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Transfer-Encoding", "identity") // no chunks: nobody would be there to write the last
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		return nil, err
	}
	if err := control.Flush(); err != nil {
		return nil, err
	}
	conn, _, err := control.Hijack()
	return conn, err
}

// readStart reads the whole body, so that net/http can watch the connection.
func readStart(r *http.Request) (StartRequest, error) {
	var req StartRequest
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil {
		return req, &problem.Error{Kind: problem.Invalid, Detail: `the body must be {"resource": "<resource ID>"}, and may have "stay": true`, Err: err}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return req, problem.Errorf(problem.Invalid, "the body has something after its JSON object")
	}
	return req, nil
}

// imdsFor returns the address of a door that answers programs of this user as
// workload, or "".
func (a *Agent) imdsFor(workload string, by evidence.Evidence) string {
	book := a.feed.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.doors {
		if d.Kind() != KindLoopback {
			continue // not where a program of the host asks by an address
		}
		ev := evidence.Evidence{Door: d.Name(), Selectors: by.Selectors}
		p, err := book.find(sought{ev: ev})
		if err == nil && sameResource(p.Resource, workload) {
			return "http://" + d.Addr()
		}
	}
	return ""
}

// Status returns what the agent knows of itself.
func (a *Agent) Status() Status {
	connected, revision, heard := a.feed.state()
	s := Status{Host: a.key.Host(), Connected: connected, Revision: revision, AgeMS: -1, App: a.AppAddr(), Evidence: a.evidence(),
		Offline: a.cfg.Offline, CertificateExpires: a.key.Expires(), RenewAt: a.key.RenewAt(), Starts: a.starts.len(), Tokens: a.tokens.Len()}
	s.JournalBytes, s.JournalLimit = a.journal.Waiting()
	if connected {
		s.AgeMS = time.Since(heard).Milliseconds()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, d := range a.doors {
		status := DoorStatus{Name: d.Name(), Kind: d.Kind(), Addr: d.Addr(), Captured: a.capturedAt(d)}
		if why := d.Shut(); why != nil {
			status.Shut = why.Error()
		}
		s.Doors = append(s.Doors, status)
	}
	return s
}

// evidence is the best grade that the agent can take over TCP.
func (a *Agent) evidence() string {
	if a.callers.Record != nil {
		return evidence.GradeKernel.String()
	}
	return evidence.GradeAfter.String()
}
