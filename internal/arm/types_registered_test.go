package arm_test

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/web"
)

func ownTypes() []*arm.Type {
	return arm.Own(web.Names{}, func(string) bool { return false })
}

func TestRegisteredTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		add  []arm.Registered
		want string // "" for a type that is taken
	}{
		{"a type", []arm.Registered{{Name: "Contoso.Robots/arms", Identity: "SystemAssigned, UserAssigned"}}, ""},
		{"without a space", []arm.Registered{{Name: "Contoso.Robots/arms", Identity: "SystemAssigned,UserAssigned"}}, ""},
		{"without identities", []arm.Registered{{Name: "Contoso.Robots/arms"}}, ""},
		{"another of a namespace", []arm.Registered{{Name: "Microsoft.Compute/disks", Identity: "None", NoLocation: true}}, ""},
		{"a child of a type that there is", []arm.Registered{{Name: "Microsoft.Web/sites/config"}}, ""},
		{"a child, before its parent", []arm.Registered{{Name: "A.B/c/d"}, {Name: "A.B/c"}}, ""},
		{"an extension", []arm.Registered{{Name: "A.B/notes", Extension: true}}, ""},

		{"one of ours", []arm.Registered{{Name: "microsoft.compute/VIRTUALMACHINES"}}, "is one of Innate's own types"},
		{"twice", []arm.Registered{{Name: "A.B/c"}, {Name: "a.b/C"}}, "is there more than once"},
		{"no parent", []arm.Registered{{Name: "A.B/c/d"}}, "is a child of A.B/c, which is no type"},
		{"an extension that is a child", []arm.Registered{{Name: "Microsoft.Web/sites/notes", Extension: true}}, "and so no extension"},
		{"rights", []arm.Registered{{Name: "Microsoft.Authorization/roleAssignments"}}, "is one of Innate's own types"},
		{"rights, in another case", []arm.Registered{{Name: "microsoft.AUTHORIZATION/x"}}, "nothing can be added to"},
		{"identities", []arm.Registered{{Name: "Microsoft.ManagedIdentity/userAssignedIdentities/x"}}, "nothing can be added to"},
		{"Innate's", []arm.Registered{{Name: "Innate.Fleet/callerRules"}}, "nothing can be added to"},
		{"no namespace", []arm.Registered{{Name: "robots/arms"}}, "is not a resource type"},
		{"no type", []arm.Registered{{Name: "Contoso.Robots"}}, "is not a resource type"},
		{"a path", []arm.Registered{{Name: "Contoso.Robots/arms/../x"}}, "is not a resource type"},
		{"a star", []arm.Registered{{Name: "Contoso.Robots/*"}}, "is not a resource type"},
		{"a Kelvin sign", []arm.Registered{{Name: "Contoso.Robots/\u212ainds"}}, "is not a resource type"},
		{"empty", []arm.Registered{{}}, "is not a resource type"},
		{"an identity that is none", []arm.Registered{{Name: "A.B/c", Identity: "System"}}, `has the identity "System"`},
		{"an identity in another order", []arm.Registered{{Name: "A.B/c", Identity: "UserAssigned, SystemAssigned"}}, "was expected"},
	} {
		rows, err := arm.Rows(ownTypes(), tt.add)
		switch {
		case tt.want == "" && (err != nil || len(rows) != len(tt.add)):
			t.Errorf("%s: %d rows, %v", tt.name, len(rows), err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	_, err := arm.Rows(ownTypes(), []arm.Registered{{Name: "x"}, {Name: "A.B/c", Identity: "?"}})
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not all faults at once: %v", err)
	}
}

// TestRegisteredTypeLives: what is registered is a type like all others.
func TestRegisteredTypeLives(t *testing.T) {
	t.Parallel()
	w := newWorldWith(t, []arm.Registered{
		{Name: "Contoso.Robots/arms", Identity: "SystemAssigned,UserAssigned"},
		{Name: "Contoso.Robots/arms/tools", NoLocation: true},
		{Name: "Contoso.Notes/notes", Extension: true, NoLocation: true},
	})
	ua := uais + "/a-1"
	w.owner.must(201, "PUT", ua, local)
	robot := g1 + "/providers/Contoso.Robots/arms/left"
	r := w.owner.must(201, "PUT", robot, block("SystemAssigned, UserAssigned", on(ua)))
	if got := identities(r); got != "SystemAssigned,UserAssigned[a-1]" {
		t.Errorf("identities are %s", got)
	}
	w.owner.must(201, "PUT", robot+"/tools/gripper", `{"properties":{"n":1}}`)
	w.owner.must(201, "PUT", robot+"/providers/Contoso.Notes/notes/n", `{"properties":{"text":"x"}}`)
	w.owner.refused(400, "InvalidRequestContent", "PUT", g1+"/providers/Contoso.Robots/arms/right", `{}`) // no location
	w.owner.refused(404, "ParentResourceNotFound", "PUT", g1+"/providers/Contoso.Robots/arms/right/tools/t", `{}`)
	w.owner.refused(400, "FailedIdentityOperation", "PUT", robot+"/tools/gripper", `{"identity":{"type":"SystemAssigned"}}`)
	// The rights are named like all others.
	reader := w.as(tenantA, "reader", roleReader+" "+robot)
	reader.must(200, "GET", robot, "")
	reader.refused(403, "AuthorizationFailed", "PATCH", robot, `{}`)
	oid := r.str("identity", "principalId")
	w.owner.must(200, "DELETE", robot, "")
	w.gone(oid)
	w.owner.refused(404, "ResourceNotFound", "GET", robot+"/tools/gripper", "")
	w.owner.refused(404, "ResourceNotFound", "GET", robot+"/providers/Contoso.Notes/notes/n", "")
}
