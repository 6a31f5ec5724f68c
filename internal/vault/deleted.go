package vault

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/access"
)

// gone reports whether s was deleted so long ago that it counts as purged,
// though its rows may still be there.
func (v *Vault) gone(s Secret) bool {
	return !s.Deleted.IsZero() && !s.PurgeAt.After(v.Now())
}

// Delete soft-deletes the secret with all its versions.
func (v *Vault) Delete(ctx context.Context, c access.Caller, at Place, name string) (Secret, error) {
	return v.change(ctx, c, at, actionDelete, name, func(tx Tx) (Secret, error) {
		s, err := versionOf(tx, at, name, "")
		if err != nil {
			return Secret{}, err
		}
		s.Deleted = v.Now()
		s.PurgeAt = s.Deleted.Add(Retention)
		return s, tx.SetDeleted(at, name, s.Deleted, s.PurgeAt)
	})
}

// Deleted returns a soft-deleted secret, without its value.
func (v *Vault) Deleted(ctx context.Context, c access.Caller, at Place, name string) (Secret, error) {
	return v.change(ctx, c, at, actionMetadata, name, func(tx Tx) (Secret, error) {
		return v.deletedOf(tx, at, name)
	})
}

// Recover brings a soft-deleted secret back as it was.
func (v *Vault) Recover(ctx context.Context, c access.Caller, at Place, name string) (Secret, error) {
	return v.change(ctx, c, at, actionRecover, name, func(tx Tx) (Secret, error) {
		s, err := v.deletedOf(tx, at, name)
		if err != nil {
			return Secret{}, err
		}
		s.Deleted, s.PurgeAt = time.Time{}, time.Time{}
		return s, tx.SetDeleted(at, name, s.Deleted, s.PurgeAt)
	})
}

// Purge removes a soft-deleted secret for good.
func (v *Vault) Purge(ctx context.Context, c access.Caller, at Place, name string) error {
	_, err := v.change(ctx, c, at, actionPurge, name, func(tx Tx) (Secret, error) {
		s, err := v.deletedOf(tx, at, name)
		if err != nil {
			return Secret{}, err
		}
		return s, tx.Purge(at, name)
	})
	return err
}

// change is what the operations on a whole secret have in common: the right,
// one unit of work, the record.
func (v *Vault) change(ctx context.Context, c access.Caller, at Place, action, name string, do func(Tx) (Secret, error)) (Secret, error) {
	if err := CheckName(name); err != nil {
		return Secret{}, err
	}
	ev, err := v.ask(ctx, c, at, action, name)
	if err != nil {
		return Secret{}, err
	}
	var out Secret
	err = v.Store.WriteSecrets(ctx, &ev, func(tx Tx) error {
		s, err := do(tx)
		out = s
		return err
	})
	if err != nil {
		return Secret{}, v.refused(ctx, ev, fmt.Errorf("doing %s on secret %s: %w", action, name, err))
	}
	return out, nil
}

// deletedOf reads the latest version of a secret that is soft-deleted.
func (v *Vault) deletedOf(tx Tx, at Place, name string) (Secret, error) {
	s, err := tx.Latest(at, name)
	if err != nil {
		return Secret{}, said(err, name, "")
	}
	if s.Deleted.IsZero() || v.gone(s) {
		return Secret{}, notFound(name, "")
	}
	return s, nil
}
