package vault

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
)

// New is what a new version is made of.
type New struct {
	Value       Value
	ContentType string
	Tags        map[string]string
	// Disabled keeps the version from being read.
	Disabled bool
	// NotBefore and Expires are zero if unset.
	NotBefore, Expires time.Time
}

func (n New) check() error {
	for _, err := range []error{checkValue(n.Value), checkContentType(n.ContentType), checkTags(n.Tags), checkTimes(n.NotBefore, n.Expires)} {
		if err != nil {
			return err
		}
	}
	return nil
}

// Change is what an update changes of a version; nil leaves a member as it is.
// The value of a version never changes.
type Change struct {
	ContentType        *string
	Tags               map[string]string
	Enabled            *bool
	NotBefore, Expires *time.Time
}

// apply changes s, which it refuses if the outcome is no good.
func (ch Change) apply(s *Secret) error {
	if ch.ContentType != nil {
		s.ContentType = *ch.ContentType
	}
	if ch.Tags != nil {
		s.Tags = ch.Tags
	}
	if ch.Enabled != nil {
		s.Enabled = *ch.Enabled
	}
	if ch.NotBefore != nil {
		s.NotBefore = *ch.NotBefore
	}
	if ch.Expires != nil {
		s.Expires = *ch.Expires
	}
	return New{ContentType: s.ContentType, Tags: s.Tags, NotBefore: s.NotBefore, Expires: s.Expires}.check()
}

// Find returns the vault with this host name label; [problem.VaultNotFound].
func (v *Vault) Find(ctx context.Context, label string) (Place, error) {
	at, err := v.Store.VaultNamed(ctx, label)
	if err != nil {
		return Place{}, fmt.Errorf("finding vault %s: %w", problem.Clip(label), err)
	}
	return at, nil
}

func notFound(name, version string) error {
	if version != "" {
		name += "/" + version
	}
	return problem.Errorf(problem.NotFound, "A secret with (name/id) %s was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command.", name)
}

// said puts Key Vault's words for what the store did not find.
func said(err error, name, version string) error {
	if problem.Is(err, problem.NotFound) {
		return notFound(name, version)
	}
	return err
}

// Set makes a new version of the secret, and the secret if need be. body is
// called once the right to set is sure, so that nobody without it has a body
// read. A body may be long in coming: body has to fail if by then c is no
// caller any more, and the right is asked for again after it.
func (v *Vault) Set(ctx context.Context, c access.Caller, at Place, name string, body func() (New, error)) (Secret, error) {
	if err := CheckName(name); err != nil {
		return Secret{}, err
	}
	ev, err := v.ask(ctx, c, at, actionSet, name)
	if err != nil {
		return Secret{}, err
	}
	made, err := v.prepare(ctx, at, name, body)
	if err != nil {
		return Secret{}, v.refused(ctx, ev, err)
	}
	if ev, err = v.ask(ctx, c, at, actionSet, name); err != nil {
		return Secret{}, err
	}
	var out Secret
	err = v.Store.WriteSecrets(ctx, &ev, func(tx Tx) error {
		out = made // may run more than once
		last, err := tx.Latest(at, name)
		switch {
		case problem.Is(err, problem.NotFound):
		case err != nil:
			return err
		case v.gone(last):
			if err := tx.Purge(at, name); err != nil {
				return err
			}
		case !last.Deleted.IsZero():
			return problem.Errorf(problem.DeletedRecoverable, "Secret %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.", name)
		default:
			out.Name = last.Name // its first author's case
		}
		return tx.AddVersion(at, out)
	})
	if err != nil {
		return Secret{}, v.refused(ctx, ev, fmt.Errorf("setting secret %s: %w", name, err))
	}
	return out, nil
}

// prepare makes and seals the version that body asks for.
func (v *Vault) prepare(ctx context.Context, at Place, name string, body func() (New, error)) (Secret, error) {
	n, err := body()
	if err != nil {
		return Secret{}, err
	}
	if err := n.check(); err != nil {
		return Secret{}, err
	}
	version, err := v.newVersion()
	if err != nil {
		return Secret{}, err
	}
	sealed, err := v.Box.Seal(ctx, sealing(at, name, version), []byte(n.Value))
	if err != nil {
		return Secret{}, fmt.Errorf("sealing secret %s: %w", name, err)
	}
	now := v.Now()
	return Secret{
		Name: name, Version: version, Sealed: sealed, ContentType: n.ContentType, Tags: n.Tags, Enabled: !n.Disabled,
		NotBefore: n.NotBefore, Expires: n.Expires, Created: now, Updated: now,
	}, nil
}

// Get returns a version of the secret, "" for the latest, with its value.
func (v *Vault) Get(ctx context.Context, c access.Caller, at Place, name, version string) (Secret, Value, error) {
	name, version, err := checkNames(name, version)
	if err != nil {
		return Secret{}, "", err
	}
	ev, err := v.ask(ctx, c, at, actionGet, name)
	if err != nil {
		return Secret{}, "", err
	}
	s, value, err := v.open(ctx, at, name, version)
	if err != nil {
		return Secret{}, "", v.refused(ctx, ev, err)
	}
	if err := v.Store.Record(ctx, ev); err != nil {
		return Secret{}, "", fmt.Errorf("recording a read of secret %s: %w", name, err)
	}
	return s, value, nil
}

func (v *Vault) open(ctx context.Context, at Place, name, version string) (Secret, Value, error) {
	s, err := v.Store.Secret(ctx, at.Tenant, at.ID.Key(), name, version)
	if err != nil {
		return Secret{}, "", fmt.Errorf("reading secret %s: %w", name, said(err, name, version))
	}
	if !s.Enabled {
		return Secret{}, "", problem.Errorf(problem.Disabled, "Operation get is not allowed on a disabled secret.")
	}
	value, err := v.Box.Open(ctx, sealing(at, s.Name, s.Version), s.Sealed)
	if err != nil {
		return Secret{}, "", fmt.Errorf("unsealing secret %s: %w", name, err)
	}
	return s, Value(value), nil
}

// List returns a page of the latest versions of the vault's secrets, or with
// deleted of its soft-deleted ones, by name, without values. next is the after
// of the next page, "" after the last one.
func (v *Vault) List(ctx context.Context, c access.Caller, at Place, deleted bool, after string, limit int) (page []Secret, next string, err error) {
	ev, err := v.ask(ctx, c, at, actionMetadata, "")
	if err != nil {
		return nil, "", err
	}
	// One more than asked for says whether there is a next page.
	page, err = v.Store.Secrets(ctx, at.Tenant, at.ID.Key(), deleted, after, limit+1)
	if err != nil {
		return nil, "", v.refused(ctx, ev, fmt.Errorf("listing the secrets of %s: %w", at.Name, err))
	}
	if len(page) > limit {
		page = page[:limit]
		next = strings.ToLower(page[limit-1].Name)
	}
	kept := page[:0]
	for _, s := range page {
		if !v.gone(s) {
			kept = append(kept, s)
		}
	}
	if err := v.Store.Record(ctx, ev); err != nil {
		return nil, "", fmt.Errorf("recording a list: %w", err)
	}
	return kept, next, nil
}

// Versions returns a page of the secret's versions, newest first, without
// values; next is as in [Vault.List].
func (v *Vault) Versions(ctx context.Context, c access.Caller, at Place, name, after string, limit int) (page []Secret, next string, err error) {
	if err := CheckName(name); err != nil {
		return nil, "", err
	}
	ev, err := v.ask(ctx, c, at, actionMetadata, name)
	if err != nil {
		return nil, "", err
	}
	page, err = v.Store.Versions(ctx, at.Tenant, at.ID.Key(), name, after, limit+1)
	if err == nil && len(page) == 0 && after == "" {
		err = notFound(name, "")
	}
	if err != nil {
		return nil, "", v.refused(ctx, ev, fmt.Errorf("listing the versions of secret %s: %w", name, err))
	}
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].Version
	}
	if err := v.Store.Record(ctx, ev); err != nil {
		return nil, "", fmt.Errorf("recording a list: %w", err)
	}
	return page, next, nil
}

// Update changes attributes, tags or content type of a version, "" for the
// latest. body is as in [Vault.Set].
func (v *Vault) Update(ctx context.Context, c access.Caller, at Place, name, version string, body func() (Change, error)) (Secret, error) {
	name, version, err := checkNames(name, version)
	if err != nil {
		return Secret{}, err
	}
	ev, err := v.ask(ctx, c, at, actionUpdate, name)
	if err != nil {
		return Secret{}, err
	}
	change, err := body()
	if err != nil {
		return Secret{}, v.refused(ctx, ev, err)
	}
	if ev, err = v.ask(ctx, c, at, actionUpdate, name); err != nil {
		return Secret{}, err
	}
	var out Secret
	err = v.Store.WriteSecrets(ctx, &ev, func(tx Tx) error {
		s, err := versionOf(tx, at, name, version)
		if err != nil {
			return err
		}
		if err := change.apply(&s); err != nil {
			return err
		}
		s.Updated = v.Now()
		out = s
		return tx.UpdateVersion(at, s)
	})
	if err != nil {
		return Secret{}, v.refused(ctx, ev, fmt.Errorf("updating secret %s: %w", name, err))
	}
	return out, nil
}

// versionOf reads one version of a live secret, "" for the latest.
func versionOf(tx Tx, at Place, name, version string) (Secret, error) {
	var s Secret
	var err error
	if version == "" {
		s, err = tx.Latest(at, name)
	} else {
		s, err = tx.Version(at, name, version)
	}
	if err != nil {
		return Secret{}, said(err, name, version)
	}
	if !s.Deleted.IsZero() {
		return Secret{}, notFound(name, version)
	}
	return s, nil
}

func checkNames(name, version string) (string, string, error) {
	if err := CheckName(name); err != nil {
		return "", "", err
	}
	if version == "" {
		return name, "", nil
	}
	return name, strings.ToLower(version), CheckVersion(version)
}
