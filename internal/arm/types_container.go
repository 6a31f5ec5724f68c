package arm

import "github.com/innate-id/innate/internal/web"

const (
	containerNames     = `^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`
	containerNamesRule = "1 to 32 lower-case letters, digits and hyphens are allowed, beginning with a letter and ending with a letter or digit"
)

// containerTypes are container groups, container apps and their jobs. An app's
// document is all that there is of it: a PUT without identities removes them,
// and a read says that there are none.
func containerTypes(web.Names) []*Type {
	group := withBoth("Microsoft.ContainerInstance/containerGroups", commaSpace).
		named(`^[a-z0-9](-?[a-z0-9]){0,62}$`, "1 to 63 lower-case letters, digits and hyphens are allowed, beginning and ending with a letter or digit, without two hyphens in a row")
	group.Polling, group.Waited = PollAsync, []string{"PATCH"}
	group.Computed = []string{"instanceView"}
	group.WriteOnly = []string{
		"containers[].properties.environmentVariables[].secureValue", "initContainers[].properties.environmentVariables[].secureValue",
		"imageRegistryCredentials[].password", "volumes[].secret", "volumes[].azureFile.storageAccountKey",
		"diagnostics.logAnalytics.workspaceKey", "extensions[].properties.protectedSettings",
	}
	group.Actions = power("start", "stop", "restart")
	out := []*Type{group}
	for _, name := range []string{"Microsoft.App/containerApps", "Microsoft.App/jobs"} {
		t := withBoth(name, comma).named(containerNames, containerNamesRule)
		t.Without, t.SaysNone, t.Polling = Removes, true, PollAsync
		t.WriteOnly = []string{"configuration.secrets[].value"}
		t.Actions = power("start", "stop")
		out = append(out, t)
	}
	return out
}
