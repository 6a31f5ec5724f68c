package arm

import (
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/problem"
)

// FuzzAssociatedFilter: a filter that is taken keeps only what it says, and one
// that is not understood never widens a list.
func FuzzAssociatedFilter(f *testing.F) {
	for _, s := range []string{"name eq 'a'", "contains(name,'a') and type ne 'b'", "startswith(id, 'x')", "name eq 'o''clock'", "name eq 'a' and ", "and", "name eq 'a'and type eq 'b'", "", " ", "endswith(resourceGroup,'')"} {
		f.Add(s, "name desc, type")
	}
	item := associated{ID: "/subscriptions/s/x", Name: "\x00never", Type: "\x00never", ResourceGroup: "\x00never", SubscriptionID: "\x00never", Subscription: "\x00never"}
	f.Fuzz(func(t *testing.T, filter, order string) {
		keep, err := associatedFilter(filter)
		if err != nil && !problem.Is(err, problem.NotSupported) {
			t.Errorf("associatedFilter(%q): %v", filter, err)
		}
		if err == nil && strings.TrimSpace(filter) != "" && strings.Count(filter, "'") < 2 {
			t.Errorf("associatedFilter(%q) filters by nothing", filter)
		}
		if err == nil && strings.HasPrefix(filter, "name eq '") && !strings.Contains(filter, "\x00") && keep(item) {
			t.Errorf("associatedFilter(%q) keeps %+v", filter, item)
		}
		compare, err := associatedOrder(order)
		if err != nil && !problem.Is(err, problem.NotSupported) {
			t.Errorf("associatedOrder(%q): %v", order, err)
		}
		if err == nil && compare(item, item) != 0 {
			t.Errorf("associatedOrder(%q) puts an item before itself", order)
		}
	})
}
