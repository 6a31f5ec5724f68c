package vault

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// Surface is what the vaults need to be spoken to over HTTP. All fields are
// required.
type Surface struct {
	Log *slog.Logger
	// Authenticate verifies the bearer token of r for a vault of tenant. Its
	// problems Unauthenticated, TokenExpired, WrongAudience and Revoked become
	// a 401 with the challenge.
	Authenticate func(ctx context.Context, r *http.Request, tenant string) (access.Caller, error)
	// Names say where tokens come from and what they are for.
	Names web.Names
}

// serviceVersion is the x-ms-keyvault-service-version of all answers.
const serviceVersion = "innate-1"

// Handler serves all vaults; the first label of the host name says which.
//
// Nothing of a request is looked at before its token: a client's first one has
// neither token nor body, and is there to be told where to get a token.
func (v *Vault) Handler(s Surface) http.Handler {
	table := routes()
	surface := &web.Surface{Name: "vault", Log: s.Log, Write: writeProblem}
	return surface.Handle(func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Ms-Keyvault-Service-Version", serviceVersion)
		label, _, _ := strings.Cut(web.HostName(r), ".")
		at, err := v.Find(r.Context(), label)
		if err != nil {
			return err
		}
		h.Set("X-Ms-Keyvault-Region", at.Location)
		q := &call{r: r, at: at, base: "https://" + r.Host}
		q.again = func() error {
			if q.caller, err = s.Authenticate(r.Context(), r, at.Tenant); err != nil {
				return s.challenge(w, r, at, err)
			}
			return nil
		}
		if err := q.again(); err != nil {
			return err
		}
		err = v.serve(w, q, table)
		if v.moved(q, label, err) {
			err = v.serve(w, q, table)
		}
		return v.onRecord(q, err)
	})
}

// moved reports whether the vault got another ID after it was found, and notes
// that: nothing is where the request looked for it, no right and no secret.
func (v *Vault) moved(q *call, label string, err error) bool {
	switch problem.Of(err).Kind {
	case problem.Denied, problem.NotFound, problem.VaultNotFound:
	default:
		return false
	}
	at, ferr := v.Find(q.r.Context(), label)
	if err == nil || ferr != nil || at.UID != q.at.UID || at.ID.Equal(q.at.ID) {
		return false
	}
	q.at = at
	return true
}

// serve answers a request whose caller is known.
func (v *Vault) serve(w http.ResponseWriter, q *call, table []route) error {
	if err := q.readQuery(); err != nil {
		return err
	}
	do, err := q.route(w, table)
	if err != nil {
		return err
	}
	return do(v, w, q)
}

// onRecord records a refusal that was come to before a right was asked for: a
// path that leads nowhere, an api-version, a name that is none. The others are
// on record.
func (v *Vault) onRecord(q *call, err error) error {
	if err == nil {
		return nil
	}
	k := problem.Of(err).Kind
	if _, ok := errors.AsType[recorded](err); ok || k == problem.Internal || k == problem.Unavailable {
		return err
	}
	verb, ok := map[string]string{"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}[q.r.Method]
	if !ok {
		verb = "action"
	}
	return v.refused(q.r.Context(), v.event(q.caller, q.at, requests+verb, q.at.ID), err)
}

// challenge says where to get a token, if that is what lacks. The SDKs read the
// header by splitting at spaces: the comma needs one. The authorization has
// exactly one path segment: the Go SDK panics without one, the JS SDK takes all of
// the path. The resource's host must be a parent domain of the vault's as it was
// asked, port included, or the SDKs refuse to send a token.
func (s Surface) challenge(w http.ResponseWriter, r *http.Request, at Place, err error) error {
	p := problem.Of(err)
	if wordsOf[p.Kind].status != http.StatusUnauthorized {
		return err
	}
	names := s.Names.Asked(web.HostName(r))
	w.Header().Set("WWW-Authenticate", `Bearer authorization="`+names.Login()+"/"+at.Tenant+`", resource="`+names.Vaults()+`"`)
	detail := "AKV10046: The token was not accepted: " + p.Detail
	switch {
	case r.Header.Get("Authorization") == "":
		detail = "AKV10000: Request is missing a Bearer or PoP token."
	case p.Kind == problem.WrongAudience:
		detail = "AKV10022: Invalid audience. " + p.Detail
	}
	return &problem.Error{Kind: p.Kind, Detail: detail, Err: err}
}

// call is one request on its way to a domain method.
type call struct {
	r      *http.Request
	caller access.Caller
	// again authenticates the request once more.
	again func() error
	at    Place
	// body is what was read; a request is read once.
	body any
	// base is where the request's vault is, "https://demo.vault.D:8443". Key
	// Vault is https only, also where something before us ends the TLS.
	base          string
	query         url.Values
	apiVersion    string
	name, version string // from the path
}

var versionShape = regexp.MustCompile(`^(7\.[0-9]|(20\d\d-\d\d-\d\d))(-preview(\.\d+)?)?$`)

// readQuery reads the query. The JS SDK encodes the dash in the key
// api-version, which only a real parser sees.
func (q *call) readQuery() error {
	var err error
	if q.query, err = url.ParseQuery(q.r.URL.RawQuery); err != nil {
		return problem.Errorf(problem.Invalid, "The query string is malformed.")
	}
	versions := q.params("api-version")
	const want = "one api-version was expected, a version such as 7.4 or a date from 2015-06-01 on"
	switch {
	case len(versions) == 0 || versions[0] == "":
		return problem.Errorf(problem.MissingAPIVersion, "The query has no api-version: %s.", want)
	case len(versions) > 1:
		return problem.Errorf(problem.BadAPIVersion, "The query has %d api-versions: %s.", len(versions), want)
	case !goodVersion(versions[0]):
		return problem.Errorf(problem.BadAPIVersion, "The api-version %q is not known: %s.", problem.Clip(versions[0]), want)
	}
	q.apiVersion = versions[0]
	return nil
}

// goodVersion takes every version there was: what changed between them only
// adds members.
func goodVersion(s string) bool {
	m := versionShape.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	_, err := time.Parse(time.DateOnly, m[2])
	return m[2] == "" || err == nil && m[2] >= "2015-06-01"
}

// params returns all values of a query parameter, its name without case.
func (q *call) params(name string) []string {
	var out []string
	for k, vs := range q.query {
		if strings.EqualFold(k, name) {
			out = append(out, vs...)
		}
	}
	return out
}

func (q *call) param(name string) string {
	if vs := q.params(name); len(vs) > 0 {
		return vs[0]
	}
	return ""
}

// handler answers a call whose path and method are known.
type handler func(v *Vault, w http.ResponseWriter, q *call) error

type route struct {
	method string // "" for all
	path   string
	do     handler
}

// routes is the whole surface. The first line that fits counts.
func routes() []route {
	out := []route{
		{"GET", "secrets", listSecrets(false)},
		{"POST", "secrets/restore", notSupported},
		{"GET", "secrets/{name}", getSecret},
		{"PUT", "secrets/{name}", setSecret},
		{"PATCH", "secrets/{name}", updateSecret},
		{"DELETE", "secrets/{name}", deleteSecret},
		{"GET", "secrets/{name}/versions", listVersions},
		{"POST", "secrets/{name}/backup", notSupported},
		{"GET", "secrets/{name}/{version}", getSecret},
		{"PATCH", "secrets/{name}/{version}", updateSecret},
		{"GET", "deletedsecrets", listSecrets(true)},
		{"GET", "deletedsecrets/{name}", getDeleted},
		{"DELETE", "deletedsecrets/{name}", purgeDeleted},
		{"POST", "deletedsecrets/{name}/recover", recoverDeleted},
	}
	for _, other := range []string{"keys", "deletedkeys", "certificates", "deletedcertificates", "storage", "deletedstorage", "rng", "backup", "restore"} {
		out = append(out, route{"", other + "/...", notSupported})
	}
	return out
}

// route finds what serves the request, and notes the names in its path.
func (q *call) route(w http.ResponseWriter, table []route) (handler, error) {
	segs, ok := web.Path(q.r)
	if !ok {
		return nil, problem.Errorf(problem.Invalid, "The path is malformed.")
	}
	var allow []string
	for _, rt := range table {
		if !q.fits(rt.path, segs) {
			continue
		}
		if rt.method == q.r.Method || rt.method == "" {
			return rt.do, nil
		}
		allow = append(allow, rt.method)
	}
	if allow == nil {
		return nil, problem.Errorf(problem.Invalid, "There is nothing at this path; /secrets or /deletedsecrets was expected.")
	}
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(slices.Compact(allow), ", "))
	return nil, problem.Errorf(problem.MethodNotAllowed, "The method %s is not allowed here; %s was expected.", problem.Clip(q.r.Method), strings.Join(slices.Compact(allow), " or "))
}

// fits reports whether segs match the pattern, and sets name and version.
func (q *call) fits(pattern string, segs []string) bool {
	if first, ok := strings.CutSuffix(pattern, "/..."); ok {
		return len(segs) > 0 && strings.EqualFold(segs[0], first)
	}
	want := strings.Split(pattern, "/")
	if len(want) != len(segs) {
		return false
	}
	q.name, q.version = "", ""
	for i, s := range segs {
		switch {
		case want[i] == "{name}":
			q.name = s
		case want[i] == "{version}":
			q.version = s
		case !strings.EqualFold(want[i], s):
			return false
		}
	}
	return true
}

func notSupported(*Vault, http.ResponseWriter, *call) error {
	return problem.Errorf(problem.NotSupported, "This version of Innate has secrets only: keys, certificates, storage accounts, backup and restore are not supported.")
}

func getSecret(v *Vault, w http.ResponseWriter, q *call) error {
	s, value, err := v.Get(q.r.Context(), q.caller, q.at, q.name, q.version)
	if err != nil {
		return err
	}
	return q.writeSecret(w, s, &value)
}

func setSecret(v *Vault, w http.ResponseWriter, q *call) error {
	var value Value
	s, err := v.Set(q.r.Context(), q.caller, q.at, q.name, func() (New, error) {
		n, err := read(q, readNew)
		value = n.Value
		return n, err
	})
	if err != nil {
		return err
	}
	return q.writeSecret(w, s, &value)
}

// read reads a body, and then asks whose token the request's is once more: the
// body may have come as slowly as the server lets it, and the identity may
// have been deleted meanwhile.
func read[T any](q *call, body func(*http.Request) (T, error)) (T, error) {
	if out, ok := q.body.(T); ok {
		return out, nil
	}
	out, err := body(q.r)
	if err == nil {
		q.body = out
		err = q.again()
	}
	return out, err
}

func readNew(r *http.Request) (New, error) {
	var req SetRequest
	if err := web.ReadJSON(r, &req); err != nil {
		return New{}, err
	}
	if req.Value == nil {
		return New{}, problem.Errorf(problem.Invalid, "The request body has no value; a string was expected.")
	}
	n := New{Value: Value(*req.Value), ContentType: req.ContentType, Tags: req.Tags}
	if req.Attributes == nil {
		return n, nil
	}
	if req.Attributes.Enabled != nil {
		n.Disabled = !*req.Attributes.Enabled
	}
	var err error
	if n.NotBefore, err = unixTime("nbf", req.Attributes.NotBefore); err != nil {
		return New{}, err
	}
	n.Expires, err = unixTime("exp", req.Attributes.Expires)
	return n, err
}

func updateSecret(v *Vault, w http.ResponseWriter, q *call) error {
	s, err := v.Update(q.r.Context(), q.caller, q.at, q.name, q.version, func() (Change, error) { return read(q, readChange) })
	if err != nil {
		return err
	}
	return q.writeSecret(w, s, nil)
}

func readChange(r *http.Request) (Change, error) {
	var req UpdateRequest
	if err := web.ReadJSON(r, &req); err != nil {
		return Change{}, err
	}
	ch := Change{ContentType: req.ContentType, Tags: req.Tags}
	if a := req.Attributes; a != nil {
		ch.Enabled = a.Enabled
		for _, t := range []struct {
			name string
			in   *int64
			out  **time.Time
		}{{"nbf", a.NotBefore, &ch.NotBefore}, {"exp", a.Expires, &ch.Expires}} {
			at, err := unixTime(t.name, t.in)
			if err != nil {
				return Change{}, err
			}
			if t.in != nil {
				*t.out = &at
			}
		}
	}
	return ch, nil
}

func deleteSecret(v *Vault, w http.ResponseWriter, q *call) error {
	s, err := v.Delete(q.r.Context(), q.caller, q.at, q.name)
	if err != nil {
		return err
	}
	return q.writeSecret(w, s, nil)
}

func getDeleted(v *Vault, w http.ResponseWriter, q *call) error {
	s, err := v.Deleted(q.r.Context(), q.caller, q.at, q.name)
	if err != nil {
		return err
	}
	return q.writeSecret(w, s, nil)
}

func recoverDeleted(v *Vault, w http.ResponseWriter, q *call) error {
	s, err := v.Recover(q.r.Context(), q.caller, q.at, q.name)
	if err != nil {
		return err
	}
	return q.writeSecret(w, s, nil)
}

func purgeDeleted(v *Vault, w http.ResponseWriter, q *call) error {
	if err := v.Purge(q.r.Context(), q.caller, q.at, q.name); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func listSecrets(deleted bool) handler {
	return func(v *Vault, w http.ResponseWriter, q *call) error {
		after, limit, err := q.page(CheckName)
		if err != nil {
			return err
		}
		page, next, err := v.List(q.r.Context(), q.caller, q.at, deleted, after, limit)
		if err != nil {
			return err
		}
		return q.writePage(w, page, next, false)
	}
}

func listVersions(v *Vault, w http.ResponseWriter, q *call) error {
	after, limit, err := q.page(CheckVersion)
	if err != nil {
		return err
	}
	page, next, err := v.Versions(q.r.Context(), q.caller, q.at, q.name, after, limit)
	if err != nil {
		return err
	}
	return q.writePage(w, page, next, true)
}

// page reads where a list goes on and how long a page is. check is for what a
// skip token holds: the last name or version of the page before.
func (q *call) page(check func(string) error) (after string, limit int, err error) {
	limit = PageSize
	if s := q.param("maxresults"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > PageSize {
			return "", 0, problem.Errorf(problem.Invalid, "The maxresults %q is not a number from 1 to %d.", problem.Clip(s), PageSize)
		}
	}
	token := q.param("$skiptoken")
	if token == "" {
		return "", limit, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || check(string(b)) != nil {
		return "", 0, problem.Errorf(problem.Invalid, "The $skiptoken is not one of a nextLink of this list.")
	}
	return strings.ToLower(string(b)), limit, nil
}

func (q *call) writePage(w http.ResponseWriter, page []Secret, next string, versions bool) error {
	out := ListResult{Value: make([]Bundle, 0, len(page))}
	for _, s := range page {
		out.Value = append(out.Value, q.bundle(s, versions))
	}
	if next != "" {
		link := q.base + q.r.URL.EscapedPath() + "?api-version=" + url.QueryEscape(q.apiVersion)
		if m := q.param("maxresults"); m != "" {
			link += "&maxresults=" + url.QueryEscape(m)
		}
		link += "&$skiptoken=" + base64.RawURLEncoding.EncodeToString([]byte(next))
		out.NextLink = &link
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

// writeSecret answers with a version, and with its value if there is one.
func (q *call) writeSecret(w http.ResponseWriter, s Secret, value *Value) error {
	out := q.bundle(s, true)
	if value != nil {
		text := string(*value)
		out.Value = &text
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

func (q *call) bundle(s Secret, version bool) Bundle {
	out := Bundle{
		ID: q.base + "/secrets/" + s.Name,
		Attributes: Attributes{
			Enabled: s.Enabled, NotBefore: unix(s.NotBefore), Expires: unix(s.Expires), Created: unix(s.Created), Updated: unix(s.Updated),
			RecoveryLevel: "Recoverable+Purgeable", RecoverableDays: int(Retention / (24 * time.Hour)),
		},
		ContentType: s.ContentType, Tags: s.Tags,
	}
	if version {
		out.ID += "/" + s.Version
	}
	if !s.Deleted.IsZero() {
		out.RecoveryID = q.base + "/deletedsecrets/" + s.Name
		out.DeletedDate, out.ScheduledPurgeDate = unix(s.Deleted), unix(s.PurgeAt)
	}
	return out
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
