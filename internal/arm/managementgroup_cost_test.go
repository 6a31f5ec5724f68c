package arm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/resource"
)

// TestListsOfSubscriptionsForWhoHasARoleInEach: such a principal does not have
// each subscription compared with each of its roles, by which a few requests
// would keep a control plane busy. It is measured by who has one role above all.
func TestListsOfSubscriptionsForWhoHasARoleInEach(t *testing.T) {
	const n = 3000
	w := newWorld(t)
	each, root := w.as(tenantA, "each"), w.root()
	w.write(func(tx arm.Tx) error {
		for i := range n {
			guid := fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
			id := resource.MustParse("/subscriptions/" + guid)
			if err := tx.PutResource(arm.Resource{Tenant: tenantA, ID: id, Type: id.Type(), UID: guid, Created: start, Updated: start}); err != nil {
				return err
			}
			name, err := id.Extension("Microsoft.Authorization/roleAssignments", guid)
			if err != nil {
				return err
			}
			ra := arm.RoleAssignment{Tenant: tenantA, PrincipalType: "ServicePrincipal", Created: start, Updated: start,
				Assignment: access.Assignment{ID: name, Role: roleReader, Principal: each.oid, Scope: id}}
			if err := tx.PutRoleAssignment(ra); err != nil {
				return err
			}
		}
		return nil
	})
	for _, list := range [][2]string{{"POST", entities}, {"GET", "/subscriptions"}} {
		took := func(who *caller) time.Duration {
			began := time.Now()
			if got := len(who.must(200, list[0], list[1], "").values()); got < n {
				t.Errorf("%s has %d, want %d", list[1], got, n)
			}
			return time.Since(began)
		}
		by := took(root)
		if is := took(each); is > 5*by+500*time.Millisecond {
			t.Errorf("%s takes %v for who has a role in each, %v for who has one above all", list[1], is, by)
		}
	}
}
