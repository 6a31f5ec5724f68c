package directory

import (
	"context"
	"fmt"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/resource"
)

// Somewhere reports whether c has one of the actions at the scope of any role
// assignment of its own. It gives no right: it tells who may see nothing at all,
// and need not be asked about one thing after another, from who may see some.
func (d *Directory) Somewhere(ctx context.Context, c access.Caller, actions ...string) (bool, error) {
	if c.System {
		return true, nil
	}
	all, err := d.Store.Facts(ctx, c.Tenant, c.Principal, resource.Root)
	if err != nil {
		return false, fmt.Errorf("reading the rights of %s: %w", c.Principal, err)
	}
	for _, a := range all.Assignments {
		// Most roles are about something else; only the others are asked about
		// in earnest, with what conditions and denials say.
		alone := all
		a.Condition = ""
		alone.Assignments = []access.Assignment{a}
		for _, action := range actions {
			op := access.Operation{Action: action, Scope: a.Scope}
			if !access.Decide(op, alone).Allowed {
				continue
			}
			if got, err := d.Authorize(ctx, c, op); err != nil || got.Allowed {
				return got.Allowed, err
			}
		}
	}
	return false, nil
}
