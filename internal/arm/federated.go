package arm

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
)

const typeFederated = typeIdentity + "/federatedIdentityCredentials"

// maxExpressions bounds an identity's credentials with expressions: each is
// evaluated for each token of its issuer. There may be any number of others.
const maxExpressions = 200

// Federate registers federated identity credentials: which tokens of other
// issuers stand for a user-assigned identity. try reads a token for a dry run.
//
// Whoever may write one can become the identity: their own issuer will do. The
// right to it is one of its own, which the roles have that may assign the
// identity or manage it, and no role for machines. Writing one asks the issuer
// nothing: it need not be there yet.
func (a *API) Federate(try TryAssertion) {
	a.Register(&Type{
		Name: typeFederated, NoLocation: true,
		NamePattern: regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{2,119}$`),
		NameRule:    "3 to 120 letters, digits and - _ are allowed, beginning with a letter or digit",
		Check: func(_ context.Context, _ *Resource, r *Resource) error {
			c, err := credentialOf(*r)
			if err != nil {
				return err
			}
			return c.Check()
		},
		Written:  trust,
		Deleting: distrust,
		View: func(r Resource, _ directory.Principal, p map[string]any) {
			delete(p, "provisioningState")
			for name, v := range p { // a client may say null of the one of the two that it does not use
				if raw, ok := v.(json.RawMessage); ok && isNull(raw) {
					delete(p, name)
				}
			}
		},
	})
	identity := a.Types[strings.ToLower(typeIdentity)]
	if identity.Actions == nil {
		identity.Actions = map[string]Action{}
	}
	// It only reads, and what it tells is what the credentials say.
	identity.Actions["evaluatefederatedtoken"] = Action{Name: "evaluateFederatedToken", Needs: typeFederated + "/read", With: a.evaluate(try)}
}

// federatedProperties are the properties of a credential.
type federatedProperties struct {
	Issuer    string   `json:"issuer"`
	Subject   string   `json:"subject"`
	Audiences []string `json:"audiences"`
	// Expression stands in the place of the subject.
	Expression *federatedExpression `json:"claimsMatchingExpression"`
}

type federatedExpression struct {
	Value string `json:"value"`
	// LanguageVersion is 1, of either language.
	LanguageVersion int `json:"languageVersion"`
	// Language is "matching", the field's own and what is meant without it, or
	// "cel", which is Innate's to offer.
	Language string `json:"language"`
}

// credentialOf reads a resource's properties.
func credentialOf(r Resource) (federation.Credential, error) {
	var p federatedProperties
	raw := Document(r.Body).Member("properties")
	if isNull(raw) {
		return federation.Credential{}, problem.Errorf(problem.Invalid, "The member 'properties' is missing; an object with 'issuer', 'audiences' and 'subject' or 'claimsMatchingExpression' was expected.")
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return federation.Credential{}, problem.Errorf(problem.Invalid, "The member 'properties' needs 'issuer' (a string), 'audiences' (strings), and 'subject' (a string) or 'claimsMatchingExpression' (an object with 'value' and 'languageVersion').")
	}
	c := federation.Credential{Name: r.ID.Name(), Issuer: p.Issuer, Subject: p.Subject, Audiences: p.Audiences}
	if e := p.Expression; e != nil {
		l, ok := federation.ParseLanguage(e.Language)
		if !ok {
			return c, problem.Errorf(problem.Invalid, "The member 'properties.claimsMatchingExpression.language' is '%s'; matching or cel was expected.", problem.Clip(e.Language))
		}
		if e.LanguageVersion != 1 {
			return c, problem.Errorf(problem.Invalid, "The member 'properties.claimsMatchingExpression.languageVersion' is %d; 1 was expected.", e.LanguageVersion)
		}
		c.Expression = federation.Expression{Language: l, Text: e.Value}
	}
	return c, nil
}

// trust makes what is matched what the resource says. One that is written anew
// without a change leaves the tokens that are out alone.
func trust(tx Tx, r Resource) error {
	c, err := credentialOf(r)
	if err != nil {
		return err
	}
	p, err := tx.PrincipalOf(r.ID.Parent().Key())
	if err != nil {
		return err
	}
	old, err := tx.FederatedCredential(p.ID, c.Name)
	switch {
	case err == nil && old.Says(c):
		return nil
	case err != nil && !problem.Is(err, problem.NotFound):
		return err
	}
	if had := err == nil && old.Subject == ""; c.Subject == "" && !had {
		n, err := tx.FederatedExpressions(p.ID)
		if err != nil {
			return err
		}
		if n >= maxExpressions {
			return problem.Errorf(problem.Conflict, "The identity has %d credentials with expressions, and more are not possible: each is evaluated for each token. Join some, or use subjects, of which there may be any number.", n)
		}
	}
	c.Trust = uuid.NewString()
	err = tx.PutFederatedCredential(p.ID, c)
	if problem.Is(err, problem.Exists) {
		return problem.Errorf(problem.Exists, "Issuer and subject combination already exists for this Managed Identity: the identity has another federated credential of the issuer '%s' for the subject '%s'.", c.Issuer, c.Subject)
	}
	return err
}

// distrust takes away what is matched.
func distrust(tx Tx, r Resource) error {
	p, err := tx.PrincipalOf(r.ID.Parent().Key())
	if problem.Is(err, problem.NotFound) {
		return nil // what belonged to it went with it
	}
	if err != nil {
		return err
	}
	return tx.DeleteFederatedCredential(p.ID, r.ID.Name())
}
