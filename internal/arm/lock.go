package arm

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// typeLock is the type of locks: what stands in the way of a change, whoever
// has the right to it, until somebody who may takes it away.
const typeLock = "Microsoft.Authorization/locks"

// The levels of locks. Both stop deletes; ReadOnly stops every change.
const (
	canNotDelete = "CanNotDelete"
	readOnly     = "ReadOnly"
)

// lockType is the row of locks in the table of types. A lock is bound to what
// it locks, and counts there and below.
func lockType() *Type {
	return &Type{
		Name: typeLock, NoLocation: true, AnyScope: true, NamePattern: names, NameRule: namesRule,
		Check: func(_ context.Context, _ *Resource, r *Resource) error {
			r.BoundTo = r.ID.Scope()
			if r.BoundTo.SubscriptionID().IsZero() {
				return problem.Errorf(problem.BadID, "The scope '%s' cannot be locked; a subscription, a resource group or a resource was expected.", r.BoundTo)
			}
			if l := lockLevel(*r); l != canNotDelete && l != readOnly {
				return problem.Errorf(problem.Invalid, "The member 'properties.level' is '%s'; %s or %s was expected.", problem.Clip(l), canNotDelete, readOnly).At("properties.level")
			}
			return nil
		},
		View: func(_ Resource, _ directory.Principal, p map[string]any) { delete(p, "provisioningState") },
	}
}

func lockLevel(r Resource) string {
	var p struct {
		Level string `json:"level"`
	}
	if raw := Document(r.Body).Member("properties"); !isNull(raw) && json.Unmarshal(raw, &p) != nil {
		return ""
	}
	for _, l := range []string{canNotDelete, readOnly} {
		if strings.EqualFold(l, p.Level) {
			return l
		}
	}
	return p.Level
}

// lockStore is the part of [Store] about locks.
type lockStore interface {
	// Locks returns the locks at exactly these scopes (keys), by key.
	Locks(ctx context.Context, tenant string, scopes []string) ([]Resource, error)
}

// lockTx is the part of [Tx] about locks.
type lockTx interface {
	Locks(scopes []string) ([]Resource, error)
	// ResourcesOf lists the resources of a type below a key.
	ResourcesOf(under, typ string) ([]Resource, error)
}

func keysOf(ids []resource.ID) []string {
	var out []string
	for _, n := range ids {
		out = append(out, n.Key())
	}
	return out
}

// unlocked refuses a write that a lock at its target or above stands in the way
// of. It is asked within the write, so that a lock counts from its own commit on.
// Locks do not stop those who may write locks from doing so, nor Innate itself.
func unlocked(tx Tx, ev audit.Event) error {
	target, err := resource.Parse(ev.Target)
	if err != nil || target.IsRoot() || strings.HasPrefix(lower(ev.Action), lower(typeLock)+"/") || ours(ev) {
		return nil // nothing that can be locked
	}
	locks, err := tx.Locks(keysOf(target.Ancestors()))
	if err != nil {
		return err
	}
	return stops(locks, target, strings.HasSuffix(lower(ev.Action), "/delete"))
}

// ours reports whether Innate itself acts: no token names such a principal.
func ours(ev audit.Event) bool { return strings.HasPrefix(ev.Principal, "system:") }

// stops says which locks stand in the way of a change of a target.
func stops(locks []Resource, target resource.ID, deletes bool) error {
	var at []string
	for _, l := range locks {
		if deletes || lockLevel(l) == readOnly {
			at = append(at, l.BoundTo.String())
		}
	}
	if len(at) == 0 {
		return nil
	}
	slices.Sort(at)
	verb := "write"
	if deletes {
		verb = "delete"
	}
	return problem.Errorf(problem.Locked, "The scope '%s' cannot perform %s operation because following scope(s) are locked: '%s'. Please remove the lock and try again.",
		target, verb, strings.Join(slices.Compact(at), "', '"))
}

// unlockedBelow refuses a delete that would take with it what a lock protects:
// something below, or something elsewhere that is bound to it. with are those.
func unlockedBelow(tx Tx, ev audit.Event, r Resource, with []Resource) error {
	if ours(ev) || r.Type == typeLock {
		return nil
	}
	var locks []Resource
	var elsewhere []string
	for _, n := range with {
		switch {
		case !r.ID.Contains(n.ID):
			elsewhere = append(elsewhere, keysOf(n.ID.Ancestors())...)
		case n.Type == typeLock:
			locks = append(locks, n)
		}
	}
	if err := stops(locks, r.ID, true); err != nil {
		return err
	}
	locks, err := tx.Locks(elsewhere)
	if err != nil {
		return err
	}
	return stops(locks, r.ID, true)
}

// serveLocks lists the locks that count at a scope and, unless the filter says
// atScope(), those below it.
func (a *API) serveLocks(w http.ResponseWriter, r *http.Request, q request, probe resource.ID) error {
	if r.Method != http.MethodGet {
		return notAllowed(r, "GET")
	}
	all, err := terms(q.q.Get("$filter"), "atScope()")
	if err != nil {
		return err
	}
	for _, t := range all {
		if !t.Calls("atScope") {
			return t.Unknown("atScope()")
		}
	}
	l, err := a.Locks(r.Context(), q.c, probe.Scope(), len(all) > 0, q.q.Get("$skiptoken"))
	return a.answerList(w, r, q, l, err)
}

// Locks lists locks, as far as no denial hides them; the inherited ones are on
// the first page.
func (a *API) Locks(ctx context.Context, c access.Caller, scope resource.ID, atScope bool, after string) (List, error) {
	ev, err := a.permit(ctx, c, typeLock+"/read", scope)
	if err != nil {
		return List{}, err
	}
	var rows []Resource
	if after == "" {
		above := scope.Ancestors()
		if !atScope {
			above = above[1:] // those at the scope itself are among those below its key
		}
		if rows, err = a.Store.Locks(ctx, c.Tenant, keysOf(above)); err != nil {
			return List{}, err
		}
	}
	out := List{Value: []View{}}
	if !atScope {
		hidden := a.denials(c)
		below, next, err := sift(after,
			func(p Page) ([]Resource, error) { return a.Store.Resources(ctx, c.Tenant, scope.Key(), typeLock, p) },
			func(l Resource) string { return l.ID.Key() },
			func(l Resource) (bool, error) {
				hide, err := hidden.hide(ctx, scope, Need{typeLock + "/read", l.ID}, l.BoundTo)
				return !hide, err
			})
		if err != nil {
			return List{}, fmt.Errorf("listing locks: %w", err)
		}
		rows, out.Next = append(rows, below...), next
	}
	t := lockType()
	for _, r := range rows {
		out.Value = append(out.Value, t.view(a.Names.Asked(c.Asked), r, nil, directory.Principal{}))
	}
	return out, a.read(ctx, ev)
}
