package metadata

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/innate-id/innate/internal/problem"
)

// arc serves Azure Arc's endpoint. It is the metadata service's, but that a
// token is given to who can read a file:
//
//	GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=...
//	    401, WWW-Authenticate: Basic realm=/var/opt/azcmagent/tokens/{id}.key
//	GET the same, with Authorization: Basic {what is in the file}
//	    200
//
// A request that was forged through some other program can send headers, but
// reads no file.
type arc struct {
	imds
	keys *Keys
}

// Arc returns the handler of an Arc door, whose challenges are in keys.
func Arc(a Agent, keys *Keys) http.Handler {
	d := &arc{imds: imds{Agent: a, name: "arc"}, keys: keys}
	d.token = d.arcToken
	return d.observed(d.name, d.serve)
}

// arcToken is the answer. Whichever word named the identity, clients look for
// it in the answer and refuse one without it.
type arcToken struct {
	imdsToken
	ObjectID      string `json:"object_id,omitempty"`
	MsiResourceID string `json:"msi_res_id,omitempty"`
	MiResourceID  string `json:"mi_res_id,omitempty"`
}

func (d *arc) arcToken(ev *Event, w http.ResponseWriter, r *http.Request) (any, error) {
	q, err := d.queries.parse(r.URL.RawQuery, imdsVersion)
	if err != nil {
		return nil, err
	}
	c, err := d.place(r, ev)
	if err != nil {
		return nil, err
	}
	if _, shown := r.Header["Authorization"]; !shown {
		return nil, d.challenge(w, c)
	}
	secret, err := basic(r)
	if err != nil {
		return nil, err
	}
	if err := d.keys.redeem(secret, c.Evidence.String()); err != nil {
		return nil, err
	}
	tok, err := d.Agent.token(r.Context(), ev, c, q)
	if err != nil {
		return nil, err
	}
	out := &arcToken{imdsToken: *d.tokenBody(tok, q)}
	if q.ObjectID != "" {
		out.ObjectID = tok.Principal
	}
	if q.ResourceID != "" {
		// What was given, not what was asked for: that these are the same is
		// for the client to find.
		out.MsiResourceID, out.MiResourceID = tok.Identity, tok.Identity
	}
	return out, nil
}

// challenge writes a key for the caller's user and says where it is.
func (d *arc) challenge(w http.ResponseWriter, c *Caller) error {
	uid, ok := c.uid()
	if !ok {
		return problem.Errorf(problem.CallerRefused, "this caller's user is not known, so that no key can be written for it to read")
	}
	path, err := d.keys.challenge(c.Evidence.String(), uid)
	if err != nil {
		return err
	}
	w.Header().Set("WWW-Authenticate", "Basic realm="+path)
	return problem.Errorf(problem.Unauthenticated, "Show the content of the file in the header 'WWW-Authenticate' as 'Authorization: Basic {content}'")
}

// uid is the user that the evidence names.
func (c *Caller) uid() (int, bool) {
	for _, s := range c.Evidence.Selectors {
		if text, ok := strings.CutPrefix(string(s), "unix:uid:"); ok {
			uid, err := strconv.ParseUint(text, 10, 31)
			return int(uid), err == nil
		}
	}
	return 0, false
}

// basic returns what follows "Basic " in the one Authorization header.
func basic(r *http.Request) (string, error) {
	v, ok := one(r, "Authorization")
	scheme, secret, found := strings.Cut(v, " ")
	if !ok || !found || !strings.EqualFold(scheme, "Basic") {
		return "", problem.Errorf(problem.Unauthenticated, "Header 'Authorization' must be there once, as 'Basic {content of the key file}'")
	}
	return secret, nil
}
