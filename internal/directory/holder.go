package directory

import (
	"strings"

	"github.com/innate-id/innate/internal/resource"
)

// TypeInstance is the type of a scale set's instances.
const TypeInstance = "Microsoft.Compute/virtualMachineScaleSets/virtualMachines"

// Holder returns the resource whose identities a workload has: itself, but for
// an instance of a scale set, which has those of the set and none of its own.
// Whoever reads [Store.Identities] of a workload asks for its holder's.
func Holder(workload resource.ID) resource.ID {
	if strings.EqualFold(workload.Type(), TypeInstance) {
		return workload.Parent()
	}
	return workload
}
