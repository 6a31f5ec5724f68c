package arm

import (
	"strings"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/web"
)

// webTypes are web apps and function apps, which differ by kind alone, their
// slots, which have identities of their own, and the plans that they name.
func webTypes(n web.Names) []*Type {
	site := app("Microsoft.Web/sites").
		named(`^[A-Za-z0-9]([A-Za-z0-9-]{0,58}[A-Za-z0-9])?$`, "1 to 60 letters, digits and hyphens are allowed, beginning and ending with a letter or digit")
	site.View = appView(func(r Resource) string { return strings.ToLower(r.ID.Name()) + ".sites." + n.Domain })
	slot := app("Microsoft.Web/sites/slots").
		named(`^[A-Za-z0-9]([A-Za-z0-9-]{0,57}[A-Za-z0-9])?$`, "1 to 59 letters, digits and hyphens are allowed, beginning and ending with a letter or digit")
	slot.View = appView(func(r Resource) string {
		return strings.ToLower(r.ID.Parent().Name()+"-"+r.ID.Name()) + ".sites." + n.Domain
	})
	slot.Whole = func(r Resource, v View) { v["name"] = r.ID.Parent().Name() + "/" + r.ID.Name() } // as App Service has it
	plan := (&Type{Name: "Microsoft.Web/serverfarms", Made: 200}).
		named(`^[A-Za-z0-9]([A-Za-z0-9-]{0,58}[A-Za-z0-9])?$`, "1 to 60 letters, digits and hyphens are allowed, beginning and ending with a letter or digit")
	for _, t := range []*Type{site, slot, plan} {
		t.Polling, t.Waited = PollBody, []string{"PATCH", "DELETE"}
	}
	return []*Type{site, slot, plan}
}

func app(name string) *Type {
	t := withBoth(name, commaSpace)
	t.Made = 200 // clients take no 201
	t.Computed = []string{"state", "defaultHostName", "hostNames", "enabledHostNames", "repositorySiteName", "usageState", "availabilityState", "lastModifiedTimeUtc"}
	// App Service gives none of them again with the site.
	t.WriteOnly = []string{"siteConfig.appSettings[].value", "siteConfig.connectionStrings[].connectionString", "siteConfig.azureStorageAccounts.*.accessKey", "siteConfig.publishingPassword", "siteConfig.machineKey"}
	t.Actions = power("start", "stop", "restart")
	return t
}

func appView(host func(Resource) string) func(Resource, directory.Principal, map[string]any) {
	return func(r Resource, _ directory.Principal, p map[string]any) {
		h := host(r)
		p["state"], p["usageState"], p["availabilityState"] = "Running", "Normal", "Normal"
		p["defaultHostName"], p["hostNames"], p["enabledHostNames"] = h, []string{h}, []string{h}
		p["repositorySiteName"], p["lastModifiedTimeUtc"] = r.ID.Name(), stamp(r.Updated)
	}
}
