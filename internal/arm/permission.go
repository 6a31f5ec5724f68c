package arm

import (
	"context"
	"fmt"
	"slices"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/resource"
)

// Permissions lists what the caller may do at a scope by its role assignments
// there and above: the blocks of each one's role. It needs no right, as it says
// nothing of others. What deny assignments take away is not in it.
func (a *API) Permissions(ctx context.Context, c access.Caller, scope resource.ID) (List, error) {
	f, err := a.Directory.Store.Facts(ctx, c.Tenant, c.Principal, scope)
	if err != nil {
		return List{}, fmt.Errorf("reading the caller's role assignments: %w", err)
	}
	out := List{Value: []View{}}
	for _, as := range f.Assignments {
		if !as.Scope.Contains(scope) && !slices.ContainsFunc(f.Above, as.Scope.Equal) {
			continue
		}
		role, ok := f.Roles[as.Role]
		if !ok {
			role, _ = access.BuiltIn(as.Role)
		}
		for _, p := range role.Permissions {
			out.Value = append(out.Value, permissionView(p, as.Condition))
		}
	}
	return out, a.read(ctx, a.event(c, "Microsoft.Authorization/permissions/read", scope))
}

func permissionView(p access.Permission, condition string) View {
	v := View{"actions": p.Actions, "notActions": p.NotActions, "dataActions": p.DataActions, "notDataActions": p.NotDataActions}
	switch {
	case condition != "" && p.Condition != "":
		condition = "(" + p.Condition + ") AND (" + condition + ")"
	case condition == "":
		condition = p.Condition
	}
	if condition != "" {
		v["condition"], v["conditionVersion"] = condition, conditionVersion
	}
	return v
}
