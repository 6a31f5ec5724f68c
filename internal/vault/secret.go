package vault

import (
	"context"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/resource"
)

// Place is a vault as its host name finds it.
type Place struct {
	Tenant string
	ID     resource.ID
	// UID tells the vault from one that is made anew under its name.
	UID      string
	Name     string
	Location string
	// Tags are the vault's, which conditions can ask about.
	Tags map[string]string
}

// Secret is one version of a secret.
type Secret struct {
	// Name is as its first author wrote it; it compares without case.
	Name string
	// Version is 32 hex digits.
	Version string
	// Sealed is the value, sealed.
	Sealed      []byte
	ContentType string
	Tags        map[string]string
	Enabled     bool
	// NotBefore and Expires are information, not a gate; zero means unset.
	NotBefore, Expires time.Time
	Created, Updated   time.Time
	// Deleted is when the secret (all its versions) was soft-deleted; zero if
	// it lives. PurgeAt is when it goes for good.
	Deleted, PurgeAt time.Time
}

// Store is what the vault needs of the database. *store.DB implements it. A
// vault is (tenant, key of its resource ID); a name is compared without case.
type Store interface {
	// VaultNamed finds the vault with this host name label; [problem.VaultNotFound].
	VaultNamed(ctx context.Context, name string) (Place, error)
	// Secret returns a version, or with version "" the latest, of a secret that
	// lives; [problem.NotFound].
	Secret(ctx context.Context, tenant, vaultKey, name, version string) (Secret, error)
	// Secrets lists the latest version of each live secret (deleted: of each
	// soft-deleted one) without its value, by lower-case name > after.
	Secrets(ctx context.Context, tenant, vaultKey string, deleted bool, after string, limit int) ([]Secret, error)
	// Versions lists the versions of a live secret without values, newest
	// first, those older than the version "after" ("" from the newest). A
	// secret that does not exist has none.
	Versions(ctx context.Context, tenant, vaultKey, name, after string, limit int) ([]Secret, error)
	// WriteSecrets runs fn and records *ev in one group-committed unit: an
	// error from fn undoes its part alone and is returned. fn may run more than
	// once. It takes no revision and waits for no other tenant or vault.
	WriteSecrets(ctx context.Context, ev *audit.Event, fn func(Tx) error) error
	Record(ctx context.Context, evs ...audit.Event) error
}

// Tx is a write of secrets under way. Reads lock the secret they read, so what
// fn decides on stays true until it is committed. Each method refuses with
// [problem.VaultNotFound] if the vault with the UID of at is gone, also where
// another one stands in its place: the right was to that one.
type Tx interface {
	// Latest returns the latest version, of a live or soft-deleted secret;
	// [problem.NotFound] if the name was never set or was purged.
	Latest(at Place, name string) (Secret, error)
	// Version returns one version of a live secret; [problem.NotFound].
	Version(at Place, name, version string) (Secret, error)
	// AddVersion makes s the latest version; it creates the secret if need be.
	AddVersion(at Place, s Secret) error
	// UpdateVersion changes everything of a version but its value.
	UpdateVersion(at Place, s Secret) error
	// SetDeleted soft-deletes a secret, or with zero times recovers it.
	SetDeleted(at Place, name string, deleted, purgeAt time.Time) error
	// Purge removes a secret with all its versions.
	Purge(at Place, name string) error
}
