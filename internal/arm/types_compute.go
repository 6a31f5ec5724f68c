package arm

import (
	"context"
	"net/url"
	"strings"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
)

const (
	computeNames     = `^[A-Za-z0-9]([A-Za-z0-9_.-]{0,78}[A-Za-z0-9_])?$`
	computeNamesRule = "1 to 80 letters, digits and - _ . are allowed, beginning with a letter or digit and ending with one or with _"
)

// machineSecrets are where a machine's document has secrets.
var machineSecrets = []string{
	"osProfile.adminPassword", "osProfile.customData", "osProfile.windowsConfiguration.additionalUnattendContent[].content",
}

// computeTypes are virtual machines and scale sets. They are documents here,
// and placements say what they are: nothing is started or stopped.
func computeTypes() []*Type {
	vm := withBoth("Microsoft.Compute/virtualMachines", commaSpace).named(computeNames, computeNamesRule)
	vm.Computed, vm.WriteOnly = []string{"vmId", "instanceView", "timeCreated"}, machineSecrets
	vm.View = func(r Resource, _ directory.Principal, p map[string]any) {
		p["vmId"], p["timeCreated"] = r.UID, stamp(r.Created)
	}
	vm.Actions = power("start", "powerOff", "deallocate", "restart", "redeploy", "reimage", "runCommand")
	vm.Reads, vm.Expand = instanceViews()

	set := withBoth("Microsoft.Compute/virtualMachineScaleSets", commaSpace).named(computeNames, computeNamesRule)
	set.Computed = []string{"uniqueId", "timeCreated"}
	for _, s := range machineSecrets {
		set.WriteOnly = append(set.WriteOnly, "virtualMachineProfile."+s)
	}
	set.WriteOnly = append(set.WriteOnly, "virtualMachineProfile.extensionProfile.extensions[].properties.protectedSettings")
	set.View = func(r Resource, _ directory.Principal, p map[string]any) {
		p["uniqueId"], p["timeCreated"] = r.UID, stamp(r.Created)
	}
	set.Actions = power("start", "powerOff", "deallocate", "restart", "redeploy", "reimage", "manualUpgrade")
	set.Reads, _ = instanceViews()

	all := []*Type{
		vm, set, instanceType(),
		extension("Microsoft.Compute/virtualMachines/extensions"),
		extension("Microsoft.Compute/virtualMachineScaleSets/extensions"),
	}
	for _, t := range all {
		t.Polling = PollAsync
	}
	return all
}

// instanceType is the row of a scale set's instances. In Azure they come and go
// with sku.capacity; here they are made and deleted one by one, as machines of
// the set are, and placed on hosts. Their identities are the set's.
func instanceType() *Type {
	t := withBoth(directory.TypeInstance, commaSpace).named(computeNames, computeNamesRule)
	t.Shared, t.Made = true, 200
	t.Computed, t.Members, t.WriteOnly = []string{"vmId", "instanceView", "latestModelApplied", "timeCreated"}, []string{"instanceId"}, machineSecrets
	t.View = func(r Resource, _ directory.Principal, p map[string]any) {
		p["vmId"], p["timeCreated"], p["latestModelApplied"] = r.UID, stamp(r.Created), true
	}
	t.Whole = func(r Resource, v View) { v["instanceId"] = r.ID.Name() }
	t.Actions = power("start", "powerOff", "deallocate", "restart", "redeploy", "reimage", "reimageAll", "runCommand")
	t.Reads, t.Expand = instanceViews()
	return t
}

func extension(name string) *Type {
	return (&Type{Name: name, NoLocation: true, Computed: []string{"instanceView"}, WriteOnly: []string{"protectedSettings"}}).named(names.String(), namesRule)
}

// power are the operations on a machine that runs. Innate runs none, and says
// so: an answer that all went well would have a program wait for a machine that
// nobody started.
func power(words ...string) map[string]Action {
	out := map[string]Action{}
	for _, w := range words {
		out[strings.ToLower(w)] = Action{Name: w, Do: func(_ context.Context, _ access.Caller, r Resource, _ *audit.Event) (any, error) {
			return nil, problem.Errorf(problem.NotSupported, "'%s' cannot be done to %s here: Innate gives machines and apps their identities, and does not run them. Do it where it runs.", w, r.ID.Name())
		}}
	}
	return out
}

// instanceViews are the two ways to ask for an instance view. It says what is
// known here: that the resource is there. Whether the machine runs is not.
func instanceViews() (map[string]Read, map[string]func(Resource) any) {
	view := func(r Resource) any {
		return map[string]any{"statuses": []any{map[string]any{
			"code": "ProvisioningState/succeeded", "level": "Info", "displayStatus": "Provisioning succeeded", "time": stamp(r.Updated),
		}}}
	}
	read := Read{Name: "instanceView", Do: func(_ context.Context, _ *API, r Resource, _ url.Values) (any, error) { return view(r), nil }}
	// userData is there in any case: $expand may ask for it.
	kept := func(r Resource) any {
		for k, v := range object(Document(r.Body).Member("properties")) {
			if fold(k) == fold("userData") {
				return v
			}
		}
		return nil
	}
	return map[string]Read{"instanceview": read}, map[string]func(Resource) any{"instanceview": view, "userdata": kept}
}
