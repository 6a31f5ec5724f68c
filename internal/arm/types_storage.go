package arm

import (
	"context"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/web"
)

// storageTypes are storage accounts. There are no account keys: whoever reads
// data has a role.
func storageTypes(n web.Names) []*Type {
	account := withBoth("Microsoft.Storage/storageAccounts", comma).named(`^[a-z0-9]{3,24}$`, "3 to 24 lower-case letters and digits are allowed")
	account.Unique, account.Made, account.Polling = "storage", 200, PollLocation
	account.Waited = []string{"PATCH", "DELETE"}
	account.Computed = []string{"primaryEndpoints", "primaryLocation", "statusOfPrimary", "creationTime"}
	account.View = func(r Resource, _ directory.Principal, p map[string]any) {
		endpoints := map[string]any{}
		for _, service := range []string{"blob", "dfs", "file", "queue", "table", "web"} {
			endpoints[service] = n.URL(r.ID.Name()+"."+service) + "/"
		}
		p["primaryEndpoints"], p["primaryLocation"], p["statusOfPrimary"] = endpoints, location(r.Body), "available"
		p["creationTime"] = stamp(r.Created)
	}
	account.Actions = map[string]Action{}
	for word, name := range map[string]string{"listkeys": "listKeys", "regeneratekey": "regenerateKey", "listaccountsas": "listAccountSas", "listservicesas": "listServiceSas"} {
		account.Actions[word] = Action{Name: name, Do: func(_ context.Context, _ access.Caller, r Resource, _ *audit.Event) (any, error) {
			return nil, problem.Errorf(problem.NotSupported, "The storage account '%s' has no keys, and nothing signed by one: give the program an identity and a Storage role.", r.ID.Name())
		}}
	}
	return []*Type{account}
}
