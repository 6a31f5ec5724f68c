package directory_test

import (
	"testing"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/resource"
)

func TestHolder(t *testing.T) {
	t.Parallel()
	const set = group + "/providers/Microsoft.Compute/virtualMachineScaleSets/set1"
	for _, tt := range []struct{ workload, want string }{
		{set + "/virtualMachines/0", set},
		{group + "/providers/microsoft.compute/VIRTUALMACHINESCALESETS/set1/virtualmachines/0", group + "/providers/microsoft.compute/VIRTUALMACHINESCALESETS/set1"},
		{set, set},
		{set + "/extensions/e", set + "/extensions/e"},
		{set + "/virtualMachines/0/extensions/e", set + "/virtualMachines/0/extensions/e"},
		{set + "/virtualMachines/0/providers/Innate.Fleet/callerRules/r", set + "/virtualMachines/0/providers/Innate.Fleet/callerRules/r"},
		{vm("one").String(), vm("one").String()},
		{group, group},
		{"/", "/"},
	} {
		if got := directory.Holder(resource.MustParse(tt.workload)); got.String() != tt.want {
			t.Errorf("Holder(%s) = %s, want %s", tt.workload, got, tt.want)
		}
	}
}
