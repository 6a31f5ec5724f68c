package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/federation"
	"github.com/innate-id/innate/internal/problem"
)

const federatedColumns = `trust, name, issuer, subject, language, expression, audiences`

func scanFederated(r row) (federation.Credential, error) {
	var c federation.Credential
	var audiences string
	err := r.Scan(&c.Trust, &c.Name, &c.Issuer, &c.Subject, &c.Expression.Language, &c.Expression.Text, &audiences)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(audiences), &c.Audiences); err != nil {
		return c, fmt.Errorf("decoding the audiences of federated credential %s: %w", c.Name, err)
	}
	return c, nil
}

// candidates finds the one credential with the subject and all with an
// expression, which have none: not the others of the issuer.
const candidates = `SELECT ` + federatedColumns + ` FROM federated_credential
	WHERE tenant = $1 AND principal = $2 AND issuer = $3 AND subject IN ($4, '') ORDER BY subject DESC, name_key`

// FederatedCandidates returns the principal's federated credentials that a
// token of the issuer with this subject can match: the one with the subject,
// if there is one, then those with an expression, by name.
func (db *DB) FederatedCandidates(ctx context.Context, tenant, principal, issuer, subject string) ([]federation.Credential, error) {
	out, err := many(ctx, db.read, scanFederated, candidates, tenant, fold(principal), issuer, subject)
	if err != nil {
		return nil, fmt.Errorf("reading the federated credentials of %s: %w", principal, err)
	}
	return out, nil
}

const trustsIssuer = `SELECT trust FROM federated_credential WHERE tenant = $1 AND principal = $2 AND issuer = $3 LIMIT 1`

// TrustsIssuer reports whether the principal has a federated credential of the
// issuer.
func (db *DB) TrustsIssuer(ctx context.Context, tenant, principal, issuer string) (bool, error) {
	found, err := many(ctx, db.read, scanned[string], trustsIssuer, tenant, fold(principal), issuer)
	if err != nil {
		return false, fmt.Errorf("reading the issuers that %s trusts: %w", principal, err)
	}
	return len(found) > 0, nil
}

const trustStands = `SELECT COUNT(*) FROM federated_credential WHERE tenant = $1 AND trust = $2 AND principal = $3`

// TrustStands reports whether the principal's federated credential still says
// what it said when a token was issued by it.
func (db *DB) TrustStands(ctx context.Context, tenant, principal, trust string) (bool, error) {
	n, err := one(ctx, db.read, nil, scanned[int], trustStands, tenant, trust, fold(principal))
	if err != nil {
		return false, fmt.Errorf("reading a federated credential of %s: %w", principal, err)
	}
	return n > 0, nil
}

const listFederated = `SELECT ` + federatedColumns + ` FROM federated_credential
	WHERE tenant = $1 AND principal = $2 AND name_key > $3 ORDER BY name_key LIMIT $4`

// FederatedCredentials lists the principal's federated credentials by name.
func (db *DB) FederatedCredentials(ctx context.Context, tenant, principal string, p arm.Page) ([]federation.Credential, error) {
	out, err := many(ctx, db.read, scanFederated, listFederated, tenant, fold(principal), fold(p.After), limit(p.Limit))
	if err != nil {
		return nil, fmt.Errorf("listing the federated credentials of %s: %w", principal, err)
	}
	return out, nil
}

const getFederated = `SELECT ` + federatedColumns + ` FROM federated_credential WHERE tenant = $1 AND principal = $2 AND name_key = $3`

// FederatedCredential returns the principal's federated credential of this
// name; [problem.NotFound].
func (t *writeTx) FederatedCredential(principal, name string) (federation.Credential, error) {
	none := problem.Errorf(problem.NotFound, "there is no federated credential %q", name)
	return one(t.ctx, t.q, none, scanFederated, getFederated, t.tenant, fold(principal), fold(name))
}

const countExpressions = `SELECT COUNT(*) FROM federated_credential WHERE tenant = $1 AND principal = $2 AND subject = ''`

// FederatedExpressions counts the principal's federated credentials that have
// an expression.
func (t *writeTx) FederatedExpressions(principal string) (int, error) {
	return one(t.ctx, t.q, nil, scanned[int], countExpressions, t.tenant, fold(principal))
}

const otherFederated = `SELECT name FROM federated_credential
	WHERE tenant = $1 AND principal = $2 AND issuer = $3 AND subject = $4 AND subject <> '' AND name_key <> $5`

const putFederated = `
	INSERT INTO federated_credential (tenant, principal, name_key, name, trust, issuer, subject, language, expression, audiences)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
	ON CONFLICT (tenant, principal, name_key) DO UPDATE SET
		name = excluded.name, trust = excluded.trust, issuer = excluded.issuer, subject = excluded.subject,
		language = excluded.language, expression = excluded.expression, audiences = excluded.audiences`

// PutFederatedCredential creates or replaces the principal's federated
// credential of this name; [problem.Exists] if another has the same issuer and
// subject.
func (t *writeTx) PutFederatedCredential(principal string, c federation.Credential) error {
	principal = fold(principal)
	others, err := many(t.ctx, t.q, scanned[string], otherFederated, t.tenant, principal, c.Issuer, c.Subject, fold(c.Name))
	if err != nil {
		return fmt.Errorf("reading the federated credentials of %s: %w", principal, err)
	}
	if len(others) > 0 {
		return problem.Errorf(problem.Exists, "the federated credential %q has the same issuer and subject", others[0])
	}
	audiences, err := json.Marshal(c.Audiences)
	if err != nil {
		return fmt.Errorf("encoding audiences: %w", err)
	}
	_, err = t.exec(putFederated, t.tenant, principal, fold(c.Name), c.Name, c.Trust, c.Issuer, c.Subject,
		string(c.Expression.Language), c.Expression.Text, string(audiences))
	if err != nil {
		return fmt.Errorf("writing the federated credential %s: %w", c.Name, err)
	}
	t.change(arm.ChangeCredential, principal)
	return nil
}

const deleteFederated = `DELETE FROM federated_credential WHERE tenant = $1 AND principal = $2 AND name_key = $3`

// DeleteFederatedCredential deletes the one; no error if absent.
func (t *writeTx) DeleteFederatedCredential(principal, name string) error {
	n, err := t.exec(deleteFederated, t.tenant, fold(principal), fold(name))
	if err != nil {
		return fmt.Errorf("deleting the federated credential %s: %w", name, err)
	}
	if n > 0 {
		t.change(arm.ChangeCredential, fold(principal))
	}
	return nil
}

const deleteFederatedOf = `DELETE FROM federated_credential WHERE tenant = $1 AND principal = $2`

// deleteFederatedOf deletes all of a principal that is deleted.
func (t *writeTx) deleteFederatedOf(principal string) error {
	n, err := t.exec(deleteFederatedOf, t.tenant, principal)
	if err != nil {
		return fmt.Errorf("deleting the federated credentials of %s: %w", principal, err)
	}
	if n > 0 {
		t.change(arm.ChangeCredential, principal)
	}
	return nil
}
