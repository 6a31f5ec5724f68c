package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/appservice/armappservice/v4"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
)

// longRunning tells the story of operations that the client does not wait for,
// in all three styles of polling, each to its end and each to its failure. The
// stories run side by side: a poller sleeps for a second at the least.
func longRunning(ctx context.Context, m *manager) error {
	stories := []func(context.Context, *manager) error{asyncMachine, asyncSite, asyncGroup, move}
	ended := make(chan error, len(stories))
	for _, tell := range stories {
		go func() { ended <- tell(ctx, m) }()
	}
	var errs []error
	for range stories {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// impatient is a policy that has every write say that its client does not want
// to wait, and notes what the SDK asked and how the API had it poll.
type impatient struct{ trace []string }

func (p *impatient) Do(req *policy.Request) (*http.Response, error) {
	raw := req.Raw()
	if raw.Method != http.MethodGet {
		raw.Header.Set("Prefer", "respond-async")
	}
	resp, err := req.Next()
	if err != nil {
		return resp, err
	}
	segs := strings.Split(raw.URL.Path, "/")
	line := raw.Method + " " + segs[len(segs)-2]
	if raw.Method != http.MethodGet {
		line = fmt.Sprintf("%s %d, poll %s", raw.Method, resp.StatusCode, style(resp.Header))
	}
	if n := len(p.trace); n == 0 || p.trace[n-1] != line { // how often it asks is the machine's matter
		p.trace = append(p.trace, line)
	}
	return resp, nil
}

// style is what the Azure SDK polls.
func style(h http.Header) string {
	for _, name := range []string{"Azure-AsyncOperation", "Location"} {
		if strings.HasPrefix(h.Get(name), "https://") {
			return name
		}
	}
	return "the resource"
}

// went checks what was asked since the last time.
func (p *impatient) went(what string, want ...string) error {
	got := p.trace
	p.trace = nil
	if !slices.Equal(got, want) {
		return fmt.Errorf("%s: it went %q, not %q", what, got, want)
	}
	return nil
}

// inHaste is m with a client that does not wait.
func (m *manager) inHaste() (*manager, *impatient) {
	p := &impatient{}
	opt := *m.opt
	opt.PerCallPolicies = append(slices.Clone(opt.PerCallPolicies), p)
	hasty := *m
	hasty.opt = &opt
	return &hasty, p
}

// fails waits for an operation that is to fail, and not at its beginning.
func fails[T any](ctx context.Context, what, code string, p *runtime.Poller[T], err error) error {
	if err != nil {
		return fmt.Errorf("%s failed at once: %w", what, err)
	}
	_, err = p.PollUntilDone(ctx, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok && e.ErrorCode == code {
		return nil
	}
	return fmt.Errorf("%s: %w", what, errors.Join(errors.New("want "+code), err))
}

// asyncMachine polls the header Azure-AsyncOperation.
func asyncMachine(ctx context.Context, m *manager) error {
	m, trace := m.inHaste()
	c, err := armcompute.NewVirtualMachinesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const name = "sdk-slow"
	vm := armcompute.VirtualMachine{
		Location: to.Ptr(location), Identity: &armcompute.VirtualMachineIdentity{Type: to.Ptr(armcompute.ResourceIdentityTypeSystemAssigned)},
	}
	create, err := c.BeginCreateOrUpdate(ctx, m.group, name, vm, nil)
	made, err := done(ctx, "creating a machine", create, err)
	if err != nil {
		return err
	}
	if err := expect("the machine", map[string]bool{
		"it has a principal": made.Identity != nil && says(made.Identity.PrincipalID) != "", "it succeeded": says(made.Properties.ProvisioningState) == "Succeeded",
	}); err != nil {
		return err
	}
	if err := trace.went("a machine", "PUT 201, poll Azure-AsyncOperation", "GET operationStatuses", "GET virtualMachines"); err != nil {
		return err
	}
	create, err = c.BeginCreateOrUpdate(ctx, m.group, name, vm, &armcompute.VirtualMachinesClientBeginCreateOrUpdateOptions{IfMatch: to.Ptr(`"0"`)})
	if err := fails(ctx, "changing a machine that was changed", "PreconditionFailed", create, err); err != nil {
		return err
	}
	if err := trace.went("a machine that was changed", "PUT 201, poll Azure-AsyncOperation", "GET operationStatuses"); err != nil {
		return err
	}
	patch, err := c.BeginUpdate(ctx, m.group, name, armcompute.VirtualMachineUpdate{Tags: map[string]*string{"a": to.Ptr("b")}}, nil)
	patched, err := done(ctx, "changing a machine", patch, err)
	if err != nil {
		return err
	}
	remove, err := c.BeginDelete(ctx, m.group, name, nil)
	if _, err := done(ctx, "deleting a machine", remove, err); err != nil {
		return err
	}
	return errors.Join(expect("the machine after a patch", map[string]bool{"it has its tag": says(patched.Tags["a"]) == "b"}),
		trace.went("its change and its end", "PATCH 200, poll Azure-AsyncOperation", "GET operationStatuses", "GET virtualMachines",
			"DELETE 202, poll Azure-AsyncOperation", "GET operationStatuses"))
}

// asyncSite polls the resource, whose provisioningState says how far it is.
func asyncSite(ctx context.Context, m *manager) error {
	m, trace := m.inHaste()
	c, err := armappservice.NewWebAppsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	site := armappservice.Site{Location: to.Ptr(location), Kind: to.Ptr("app")}
	create, err := c.BeginCreateOrUpdate(ctx, m.group, "sdk-slow-site", site, nil)
	made, err := done(ctx, "creating an app", create, err)
	if err != nil {
		return err
	}
	if err := expect("the app", map[string]bool{"it is whole": says(made.Kind) == "app" && says(made.Properties.DefaultHostName) != ""}); err != nil {
		return err
	}
	if err := trace.went("an app", "PUT 202, poll the resource", "GET sites"); err != nil {
		return err
	}
	create, err = c.BeginCreateOrUpdate(ctx, "sdk-no-such-group", "sdk-slow-site", site, nil)
	return errors.Join(fails(ctx, "an app in no group", "ResourceGroupNotFound", create, err),
		trace.went("an app in no group", "PUT 202, poll the resource", "GET sites"))
}

// asyncGroup polls the header Location. A lock has the first delete fail.
func asyncGroup(ctx context.Context, m *manager) error {
	const name = "sdk-slow-group"
	id, err := m.resourceGroup(ctx, name)
	if err != nil {
		return err
	}
	any, err := armresources.NewClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	const version = "2020-05-01"
	lock := id + "/providers/Microsoft.Authorization/locks/keep"
	create, err := any.BeginCreateOrUpdateByID(ctx, lock, version, armresources.GenericResource{Properties: map[string]string{"level": "CanNotDelete"}}, nil)
	if _, err := done(ctx, "locking a group", create, err); err != nil {
		return err
	}
	hasty, trace := m.inHaste()
	c, err := armresources.NewResourceGroupsClient(m.subscription, m.cred, hasty.opt)
	if err != nil {
		return err
	}
	remove, err := c.BeginDelete(ctx, name, nil)
	if err := fails(ctx, "deleting a locked group", "ScopeLocked", remove, err); err != nil {
		return err
	}
	unlock, err := any.BeginDeleteByID(ctx, lock, version, nil)
	if _, err := done(ctx, "unlocking a group", unlock, err); err != nil {
		return err
	}
	remove, err = c.BeginDelete(ctx, name, nil)
	if _, err := done(ctx, "deleting a group", remove, err); err != nil {
		return err
	}
	if err := trace.went("a group", "DELETE 202, poll Location", "GET operationResults", "DELETE 202, poll Location", "GET operationResults"); err != nil {
		return err
	}
	there, err := c.CheckExistence(ctx, name, nil)
	return errors.Join(err, expect("the group", map[string]bool{"it is gone": !there.Success}))
}

// resourceGroup makes a resource group and returns its ID.
func (m *manager) resourceGroup(ctx context.Context, name string) (string, error) {
	c, err := armresources.NewResourceGroupsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return "", err
	}
	made, err := c.CreateOrUpdate(ctx, name, armresources.ResourceGroup{Location: to.Ptr(location), Tags: map[string]*string{"made-by": to.Ptr(name)}}, nil)
	if err != nil {
		return "", fmt.Errorf("creating the group %s: %w", name, err)
	}
	return *made.ID, nil
}

// move tells the story of an identity that moves to another group: it is done
// at once, also for clients that would poll.
func move(ctx context.Context, m *manager) error {
	there, err := m.resourceGroup(ctx, "sdk-moved-to")
	if err != nil {
		return err
	}
	if _, err := m.resourceGroup(ctx, "sdk-moved-from"); err != nil {
		return err
	}
	from := *m
	from.group = "sdk-moved-from"
	id, err := from.identity(ctx, "traveller")
	if err != nil {
		return err
	}
	identities, err := armmsi.NewUserAssignedIdentitiesClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	before, err := identities.Get(ctx, from.group, "traveller", nil)
	if err != nil {
		return err
	}
	hasty, trace := m.inHaste()
	c, err := armresources.NewClient(m.subscription, m.cred, hasty.opt)
	if err != nil {
		return err
	}
	info := armresources.MoveInfo{Resources: []*string{to.Ptr(id)}, TargetResourceGroup: to.Ptr(there)}
	check, err := c.BeginValidateMoveResources(ctx, from.group, info, nil)
	if _, err := done(ctx, "asking whether it may move", check, err); err != nil {
		return err
	}
	begin, err := c.BeginMoveResources(ctx, from.group, info, nil)
	if _, err := done(ctx, "moving it", begin, err); err != nil {
		return err
	}
	if err := trace.went("a move", "POST 204, poll the resource"); err != nil {
		return err
	}
	after, err := identities.Get(ctx, "sdk-moved-to", "traveller", nil)
	if err != nil {
		return err
	}
	if err := expect("the identity that moved", map[string]bool{
		"its principal stays": says(after.Properties.PrincipalID) == says(before.Properties.PrincipalID),
		"its client id stays": says(after.Properties.ClientID) == says(before.Properties.ClientID),
	}); err != nil {
		return err
	}
	_, err = identities.Get(ctx, from.group, "traveller", nil)
	if err := absent("the identity where it was", err); err != nil {
		return err
	}
	_, err = c.BeginMoveResources(ctx, from.group, info, nil)
	if e, ok := errors.AsType[*azcore.ResponseError](err); !ok || e.ErrorCode != "ResourceMoveFailed" {
		return errors.Join(errors.New("what moved away could move again"), err)
	}
	return tagNames(ctx, m)
}

// tagNames reads which tags are in use: the two groups' that are there.
func tagNames(ctx context.Context, m *manager) error {
	c, err := armresources.NewTagsClient(m.subscription, m.cred, m.opt)
	if err != nil {
		return err
	}
	list, err := all(ctx, "listing tags", c.NewListPager(nil), func(p armresources.TagsClientListResponse) []*armresources.TagDetails { return p.Value })
	if err != nil {
		return err
	}
	used := map[string]int32{}
	for _, t := range list {
		for _, v := range t.Values {
			used[says(t.TagName)+"="+says(v.TagValue)] = *v.Count.Value
		}
	}
	return expect("the tags", map[string]bool{"the groups' are in use": used["made-by=sdk-moved-to"] == 1 && used["made-by=sdk-moved-from"] == 1})
}
