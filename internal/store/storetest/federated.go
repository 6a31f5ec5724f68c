package storetest

import (
	"errors"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
)

func federated() []test {
	return []test{
		{"FederatedCredentials", federatedCredentials},
		{"FederatedCredentialsThatATokenCanMatch", federatedCandidates},
		{"FederatedCredentialsDieWithTheirPrincipal", federatedDie},
	}
}

const someIssuer = "https://issuer.example"

// trusting is a credential for a subject of someIssuer, or for an expression.
func trusting(name, subject, expression string) federation.Credential {
	c := federation.Credential{Trust: "trust-" + name, Name: name, Issuer: someIssuer, Subject: subject, Audiences: []string{"a", "b\"c"}}
	if expression != "" {
		c.Expression = federation.Expression{Language: federation.CEL, Text: expression}
	}
	return c
}

func federatedCredentials(t *testing.T, f *fixture) {
	one, two := trusting("One", "s1", ""), trusting("two", "", "sub != ''")
	before := f.revision()
	f.write(func(tx arm.Tx) error {
		if err := errors.Join(tx.PutFederatedCredential("P", one), tx.PutFederatedCredential("p", two)); err != nil {
			return err
		}
		got, err := tx.FederatedCredential("P", "ONE")
		same(t, "FederatedCredential", got, one)
		n, cerr := tx.FederatedExpressions("P")
		same(t, "FederatedExpressions", n, 1)
		_, nerr := tx.FederatedCredential("p", "three")
		refused(t, "FederatedCredential(none)", nerr, problem.NotFound)
		return errors.Join(err, cerr)
	})
	same(t, "changes", f.changes(before), []string{"credential p"})
	list := func(p arm.Page) []federation.Credential {
		got, err := f.db.FederatedCredentials(t.Context(), tenant, "P", p)
		must(t, err)
		return got
	}
	same(t, "FederatedCredentials", list(arm.Page{}), []federation.Credential{one, two})
	same(t, "the second page", list(arm.Page{After: "ONE", Limit: 1}), []federation.Credential{two})
	same(t, "the first page", list(arm.Page{Limit: 1}), []federation.Credential{one})

	put := func(principal string, c federation.Credential) error {
		return f.db.Write(t.Context(), event(tenant, "put"), func(tx arm.Tx) error { return tx.PutFederatedCredential(principal, c) })
	}
	rival := trusting("rival", "s1", "")
	refused(t, "the same issuer and subject", put("p", rival), problem.Exists)
	must(t, put("p2", rival)) // another identity's
	rival.Issuer, rival.Trust = someIssuer+"/", "trust-slash"
	must(t, put("p", rival)) // another issuer: a slash counts
	rival.Issuer, rival.Subject, rival.Name, rival.Trust = someIssuer, "S1", "case", "trust-case"
	must(t, put("p", rival))
	one.Trust, one.Subject = "trust-new", "s1b"
	must(t, put("p", one)) // its own name
	stands := func(principal, trust string) bool {
		ok, err := f.db.TrustStands(t.Context(), tenant, principal, trust)
		must(t, err)
		return ok
	}
	same(t, "TrustStands", []bool{stands("P", "trust-new"), stands("p", "trust-One"), stands("p2", "trust-new"), stands("p2", "trust-rival")}, []bool{true, false, false, true})
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.DeleteFederatedCredential("P", "ONE"), tx.DeleteFederatedCredential("p", "none"))
	})
	same(t, "TrustStands(deleted)", stands("p", "trust-new"), false)
	must(t, put("p", trusting("again", "s1", "")))
}

func federatedCandidates(t *testing.T, f *fixture) {
	f.write(func(tx arm.Tx) error {
		for _, c := range []federation.Credential{trusting("b", "s", ""), trusting("c", "t", ""), trusting("e2", "", "sub == 's'"), trusting("e1", "", "sub == 't'")} {
			if err := tx.PutFederatedCredential("p", c); err != nil {
				return err
			}
		}
		return nil
	})
	find := func(tenant, principal, issuer, subject string) string {
		got, err := f.db.FederatedCandidates(t.Context(), tenant, principal, issuer, subject)
		must(t, err)
		trusts, err := f.db.TrustsIssuer(t.Context(), tenant, principal, issuer)
		must(t, err)
		if len(got) > 0 && !trusts {
			t.Errorf("TrustsIssuer(%s, %s) = false with %d credentials", principal, issuer, len(got))
		}
		var names []string
		for _, c := range got {
			names = append(names, c.Name)
		}
		return strings.Join(names, " ")
	}
	same(t, "with the subject", find(tenant, "P", someIssuer, "s"), "b e1 e2")
	same(t, "with another", find(tenant, "p", someIssuer, "S"), "e1 e2")
	same(t, "without one", find(tenant, "p", someIssuer, ""), "e1 e2")
	same(t, "another issuer", find(tenant, "p", someIssuer+"/", "s"), "")
	same(t, "another principal", find(tenant, "q", someIssuer, "s"), "")
	same(t, "another tenant", find(other, "p", someIssuer, "s"), "")
}

func federatedDie(t *testing.T, f *fixture) {
	f.write(func(tx arm.Tx) error {
		return errors.Join(tx.PutPrincipal(principalOf("p", identity("u"), false)), tx.PutFederatedCredential("p", trusting("one", "s", "")))
	})
	f.write(func(tx arm.Tx) error { return tx.DeletePrincipal("P") })
	got, err := f.db.FederatedCredentials(t.Context(), tenant, "p", arm.Page{})
	must(t, err)
	same(t, "of a deleted principal", len(got), 0)
}
