package arm

import (
	"regexp"

	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/web"
)

// names is the rule of most resource types' names.
var names = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?$`)

const namesRule = "1 to 128 letters, digits and - _ . are allowed, beginning with a letter or digit"

// named is a rule for names: words says of text which it takes.
func (t *Type) named(pattern, words string) *Type {
	t.NamePattern, t.NameRule = regexp.MustCompile(pattern), words
	return t
}

// withBoth is a type whose resources can have identities of both kinds.
func withBoth(name, separator string) *Type {
	return &Type{Name: name, System: true, User: true, Separator: separator, NamePattern: names, NameRule: namesRule}
}

// Two spellings of both kinds: which one it is differs by the family, and
// clients compare the text.
const (
	commaSpace = ", "
	comma      = ","
)

// Own are the types that the management API has by itself; other rooms
// register theirs. reserved reports whether a tenant may not register an
// audience.
func Own(n web.Names, reserved func(audience string) bool) []*Type {
	own := []*Type{
		{Name: typeSubscription, NoLocation: true, Deleting: func(tx Tx, r Resource) error { return tx.PutParent(r.ID.Key(), "") }},
		managementGroupType(), lockType(),
		(&Type{Name: typeGroup, Polling: PollLocation, Waited: []string{"PUT", "PATCH"}}).named(`^[A-Za-z0-9._()-]{0,89}[A-Za-z0-9_()-]$`, "1 to 90 letters, digits and ( ) - _ . are allowed, not ending with a dot"),
		withBoth("Innate.Build/agentPools", commaSpace),
		identityType(),
		application(reserved),
	}
	for _, family := range [][]*Type{computeTypes(), webTypes(n), containerTypes(n), dataTypes(), storageTypes(n), hybridTypes()} {
		own = append(own, family...)
	}
	return own
}

// hybridTypes are machines elsewhere that Azure Arc knows. They have one
// identity, that of their agent.
func hybridTypes() []*Type {
	return []*Type{
		(&Type{Name: "Microsoft.HybridCompute/machines", System: true, Made: 200, WriteOnly: []string{"osProfile.adminPassword"}}).
			named(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,52}[A-Za-z0-9_])?$`, "1 to 54 letters, digits and - _ . are allowed, beginning with a letter or digit"),
		(&Type{Name: "Microsoft.HybridCompute/machines/extensions", NoLocation: true, Made: 200, Polling: PollAsync, WriteOnly: []string{"protectedSettings"}}).
			named(names.String(), namesRule),
	}
}

// dataTypes are data factories. One that has identities refuses a PUT that does
// not say them.
func dataTypes() []*Type {
	factory := withBoth("Microsoft.DataFactory/factories", comma).
		named(`^[A-Za-z0-9](-?[A-Za-z0-9]){2,62}$`, "3 to 63 letters, digits and hyphens are allowed, beginning and ending with a letter or digit, without two hyphens in a row")
	factory.Without = Refuses
	factory.Made = 200
	factory.Computed = []string{"createTime", "version"}
	factory.WriteOnly = []string{"repoConfiguration.clientSecret"}
	factory.View = func(r Resource, _ directory.Principal, p map[string]any) {
		p["createTime"], p["version"] = stamp(r.Created), "2018-06-01"
	}
	factory.Whole = func(_ Resource, v View) { // the family's spelling; both would be one member twice
		v["eTag"] = v["etag"]
		delete(v, "etag")
	}
	return []*Type{factory}
}
