package directory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Directory answers from the database.
type Directory struct {
	Store Store
	Now   func() time.Time
}

// NewPrincipal returns a new principal of resource r with fresh ids.
func NewPrincipal(tenant string, kind PrincipalKind, r resource.ID, system bool, now time.Time) Principal {
	return Principal{
		Tenant: tenant, ID: uuid.NewString(), Client: uuid.NewString(), Kind: kind,
		Name: r.Name(), Resource: r, System: system, Enabled: true, Created: now,
	}
}

// Alive returns the principal if a token that was issued to it at the given
// time still counts; [problem.Revoked] if it was deleted, disabled or revoked
// since, whatever the token's expiry says.
func (d *Directory) Alive(ctx context.Context, tenant, id string, issued time.Time) (Principal, error) {
	p, err := d.Store.Principal(ctx, tenant, strings.ToLower(id))
	switch {
	case problem.Is(err, problem.NotFound), err == nil && p.Kind == Group: // no token is a group's: it has the id of one that had some
		return Principal{}, problem.Errorf(problem.Revoked, "the token's identity no longer exists")
	case err != nil:
		return Principal{}, fmt.Errorf("reading principal %s: %w", id, err)
	case !p.Enabled:
		return Principal{}, problem.Errorf(problem.Revoked, "the token's identity is disabled")
	case issued.Before(p.ValidFrom):
		return Principal{}, problem.Errorf(problem.Revoked, "the token was revoked; get a new one")
	}
	return p, nil
}

// Authorize decides whether c may do op, by what exists now: c's groups, their
// role assignments, the deny assignments. It knows what there is to say of the
// principal, its program and the environment; op says what there is of the
// request and the resource. A decision that refuses is no error. It has no
// reasons: those are for who asks why.
func (d *Directory) Authorize(ctx context.Context, c access.Caller, op access.Operation) (access.Decision, error) {
	if c.System {
		return access.Decision{Allowed: true}, nil
	}
	return d.decide(ctx, c, op, false)
}

// AuthorizeUnconditionally is Authorize by those role assignments alone that
// are not narrowed by a condition. It is for operations that change what the
// narrowed may do: who may only give some roles must not be able to say what
// those roles are.
func (d *Directory) AuthorizeUnconditionally(ctx context.Context, c access.Caller, op access.Operation) (access.Decision, error) {
	if c.System {
		return access.Decision{Allowed: true}, nil
	}
	return d.decide(ctx, c, op, true)
}

func (d *Directory) decide(ctx context.Context, c access.Caller, op access.Operation, unconditionally bool) (access.Decision, error) {
	f, err := d.Store.Facts(ctx, c.Tenant, c.Principal, op.Scope)
	if err != nil {
		return access.Decision{}, fmt.Errorf("reading the rights of %s: %w", c.Principal, err)
	}
	if unconditionally {
		f = f.Unnarrowed()
	}
	if f.Narrowed() {
		if op.Attributes, err = d.fill(ctx, c, op.Attributes); err != nil {
			return access.Decision{}, err
		}
	}
	return access.Judge(op, f), nil
}

// Everywhere returns what says whether c may do an operation, for operations at
// many scopes: all is decided by one reading, however many they are. above are
// the management groups above the scope of the operation, which who asks knows.
func (d *Directory) Everywhere(ctx context.Context, c access.Caller) (func(op access.Operation, above []resource.ID) bool, error) {
	if c.System {
		return func(access.Operation, []resource.ID) bool { return true }, nil
	}
	f, err := d.Store.Facts(ctx, c.Tenant, c.Principal, resource.Root)
	if err != nil {
		return nil, fmt.Errorf("reading the rights of %s: %w", c.Principal, err)
	}
	var known access.Attributes
	if f.Narrowed() {
		if known, err = d.fill(ctx, c, known); err != nil {
			return nil, err
		}
	}
	at := f.ByScope()
	return func(op access.Operation, above []resource.ID) bool {
		there := at(op.Scope, above)
		op.Attributes.Principal, op.Attributes.Environment, op.Attributes.Caller = known.Principal, known.Environment, known.Caller
		return access.Judge(op, there).Allowed
	}, nil
}

// Denies returns what says whether a deny assignment refuses an operation to c
// at scope or below it; nil if c is denied nothing anywhere. It is for
// operations on many resources of which one right is asked: a denial at one of
// them holds there.
func (d *Directory) Denies(ctx context.Context, c access.Caller, scope resource.ID) (func(access.Operation) bool, error) {
	if c.System {
		return nil, nil
	}
	f, err := d.Store.Facts(ctx, c.Tenant, c.Principal, scope)
	if err != nil {
		return nil, fmt.Errorf("reading what %s is denied: %w", c.Principal, err)
	}
	if len(f.Denials) == 0 {
		return nil, nil
	}
	f.Assignments = nil
	var known access.Attributes
	if f.Narrowed() {
		if known, err = d.fill(ctx, c, known); err != nil {
			return nil, err
		}
	}
	return func(op access.Operation) bool {
		op.Attributes.Principal, op.Attributes.Environment, op.Attributes.Caller = known.Principal, known.Environment, known.Caller
		return !access.Judge(op, f).By.IsZero()
	}, nil
}

// Explain decides as [Directory.Authorize] does, with a reason for everything
// that was considered, and returns what it decided by. The attributes of op are
// of an operation that somebody thinks of, and go before what is known here. Of
// the principal, known false leaves everything out: a decision by an attribute
// tells who asks what it is.
func (d *Directory) Explain(ctx context.Context, c access.Caller, op access.Operation, known bool) (access.Decision, access.Facts, error) {
	f, err := d.Store.Facts(ctx, c.Tenant, c.Principal, op.Scope)
	if err != nil {
		return access.Decision{}, f, fmt.Errorf("reading the rights of %s: %w", c.Principal, err)
	}
	if f.Narrowed() {
		have, err := d.fill(ctx, c, access.Attributes{})
		if err != nil {
			return access.Decision{}, f, err
		}
		if !known {
			have.Principal = nil
		}
		if c.Via == "" {
			have.Caller = nil // which program would ask, nobody said
		}
		op.Attributes.Principal = Before(op.Attributes.Principal, have.Principal)
		op.Attributes.Environment = Before(op.Attributes.Environment, have.Environment)
		op.Attributes.Caller = Before(op.Attributes.Caller, have.Caller)
	}
	return access.Decide(op, f), f, nil
}

// Before is what is given, and what is known besides.
func Before(given, known access.Values) access.Values {
	out := maps.Clone(given)
	if out == nil {
		out = access.Values{}
	}
	for k, v := range known {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(given)), func(have string) bool { return strings.EqualFold(have, k) }) {
			out[k] = v
		}
	}
	return out
}

// Selector picks one of a resource's identities. At most one member is set;
// none means the default.
type Selector struct {
	Client   string // client id
	Object   string // object id
	Resource string // resource ID of a user-assigned identity
	System   bool   // the system-assigned one, which no program can name: a caller rule gives it
}

// Select returns the identity that sel picks among those of a workload:
// without a selector the system-assigned one, else the only user-assigned one.
// [problem.IdentityNotFound] says what there is to choose from in kind, never
// by id: the caller may be anybody on the machine.
func (d *Directory) Select(ctx context.Context, tenant string, workload resource.ID, sel Selector) (Principal, error) {
	have, err := d.Store.Identities(ctx, tenant, Holder(workload).Key())
	if err != nil {
		return Principal{}, fmt.Errorf("reading the identities of %s: %w", workload, err)
	}
	var user []Principal
	for _, p := range have {
		switch {
		case sel == (Selector{}):
			if p.System {
				return p, nil
			}
			user = append(user, p)
		case sel.matches(p):
			return p, nil
		}
	}
	switch {
	case sel != (Selector{}):
		return Principal{}, problem.Errorf(problem.IdentityNotFound, "the requested identity is not assigned to %s", workload.Name())
	case len(user) == 1:
		return user[0], nil
	case len(user) > 1:
		return Principal{}, problem.Errorf(problem.IdentityNotFound, "%s has several user-assigned identities and no system-assigned one; name one with client_id", workload.Name())
	}
	return Principal{}, problem.Errorf(problem.IdentityNotFound, "%s has no managed identity; enable one on it", workload.Name())
}

func (s Selector) matches(p Principal) bool {
	switch {
	case s.Client != "":
		return strings.EqualFold(s.Client, p.Client)
	case s.Object != "":
		return strings.EqualFold(s.Object, p.ID)
	case s.System:
		return p.System
	}
	// A system-assigned identity has no resource ID of its own to be asked by.
	id, err := resource.Parse(s.Resource)
	return err == nil && !p.System && id.Equal(p.Resource)
}
