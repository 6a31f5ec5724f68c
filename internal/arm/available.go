package arm

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/web"
)

// serveNameAvailability serves POST
// /subscriptions/{id}/providers/{namespace}/checkNameAvailability: can a
// resource of the type have the name? Names that are unique in the installation
// are taken in tenants that the caller does not see, too; that is all that is
// said of those.
func (a *API) serveNameAvailability(w http.ResponseWriter, r *http.Request, q request, args []string) error {
	scope, err := resource.Parse("/subscriptions/" + args[0])
	if err != nil {
		return err
	}
	if _, err := scope.Extension(args[1]+"/x", "x"); err != nil {
		return err
	}
	ev, err := a.permit(r.Context(), q.c, args[1]+"/checkNameAvailability/read", scope)
	if err != nil {
		return err
	}
	var body struct{ Name, Type string }
	var doc Document
	if err := web.ReadJSON(r, &doc); err != nil {
		return err
	}
	for member, to := range map[string]*string{"name": &body.Name, "type": &body.Type} {
		if raw := doc.Member(member); isNull(raw) || json.Unmarshal(raw, to) != nil {
			return a.refuse(r.Context(), ev, problem.Errorf(problem.Invalid, "The request content needs 'name' and 'type', both strings."))
		}
	}
	t, err := a.uniqueType(args[1], body.Type)
	if err != nil {
		return a.refuse(r.Context(), ev, problem.Of(err))
	}
	out := map[string]any{"nameAvailable": true}
	if !t.NamePattern.MatchString(body.Name) {
		out = map[string]any{"nameAvailable": false, "reason": "AccountNameInvalid", "message": fmt.Sprintf("The name '%s' is not valid: %s.", problem.Clip(body.Name), t.NameRule)}
	} else if taken, err := a.Store.NameTaken(r.Context(), t.Unique, body.Name); err != nil {
		return err
	} else if taken {
		out = map[string]any{"nameAvailable": false, "reason": "AlreadyExists", "message": fmt.Sprintf("The name '%s' is already in use.", body.Name)}
	}
	if err := a.Store.Record(r.Context(), ev); err != nil {
		return fmt.Errorf("recording a question: %w", err)
	}
	return web.WriteJSON(w, http.StatusOK, out)
}

// uniqueType finds a type of the namespace whose names are unique. A client
// says "Microsoft.KeyVault/vaults"; some say the type alone.
func (a *API) uniqueType(namespace, name string) (*Type, error) {
	for _, full := range []string{name, namespace + "/" + name} {
		t, ok := a.Types[strings.ToLower(full)]
		if n, _, _ := strings.Cut(full, "/"); ok && t.Unique != "" && strings.EqualFold(n, namespace) {
			return t, nil
		}
	}
	return nil, problem.Errorf(problem.Invalid, "The member 'type' is '%s', which is no type of %s whose names are unique in an installation: any free name in its group will do.", problem.Clip(name), problem.Clip(namespace))
}
