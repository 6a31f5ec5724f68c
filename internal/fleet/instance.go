package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

const actionInstance = "Innate.Fleet/instances/read"

// Instance says what a resource placed on the host is.
func (f *Fleet) Instance(ctx context.Context, h Host, r fleetapi.InstanceRequest) (fleetapi.Instance, error) {
	rev, err := f.Store.Revision(ctx, h.Tenant)
	if err != nil {
		return fleetapi.Instance{}, fmt.Errorf("reading the revision: %w", err)
	}
	ev := f.asked(ctx, h, actionInstance)
	workload, _, err := f.entitled(ctx, h, &ev, r.Workload, r.Placement, r.Evidence, r.Caller)
	if err != nil {
		return fleetapi.Instance{}, f.refuse(ctx, ev, err)
	}
	res, err := f.Store.Resource(ctx, h.Tenant, workload.Key())
	if problem.Is(err, problem.NotFound) { // deleted since
		return fleetapi.Instance{}, f.refuse(ctx, ev, err)
	}
	if err != nil {
		return fleetapi.Instance{}, fmt.Errorf("reading %s: %w", workload, err)
	}
	out, err := instance(res)
	if err != nil {
		return out, err
	}
	out.Revision = rev
	if err := f.Store.Record(ctx, ev); err != nil {
		return fleetapi.Instance{}, fmt.Errorf("recording a read: %w", err)
	}
	return out, nil
}

// instance is what programs may know of a resource.
func instance(r arm.Resource) (fleetapi.Instance, error) {
	out := fleetapi.Instance{ID: r.ID.String(), UID: r.UID, Name: r.ID.Name(), Type: r.Type, Tenant: r.Tenant}
	d := arm.Document(r.Body)
	for member, to := range map[string]any{"location": &out.Location, "tags": &out.Tags} {
		if raw := d.Member(member); len(raw) > 0 {
			if err := json.Unmarshal(raw, to); err != nil {
				return out, fmt.Errorf("reading member %s of %s: %w", member, r.ID, err)
			}
		}
	}
	if p := ofSet(r.ID, told(d.Member("properties"), toldProperties)); p != nil {
		b, err := json.Marshal(p)
		if err != nil {
			return out, fmt.Errorf("encoding the properties of %s: %w", r.ID, err)
		}
		out.Properties = b
	}
	return out, nil
}

// ofSet adds to what is told of an instance which scale set it is of, as a
// machine's own document has it.
func ofSet(id resource.ID, told any) any {
	set := directory.Holder(id)
	if set.Equal(id) {
		return told
	}
	p, _ := told.(map[string]any)
	if p == nil {
		p = map[string]any{}
	}
	p["virtualMachineScaleSet"] = map[string]string{"id": set.String()}
	return p
}

// toldProperties are the members of a resource's properties that every program
// of it may read; nil under a name means all of it. It is a list of what may
// go out, not of what may not: documents are their authors', who put passwords
// (osProfile.adminPassword), cloud-init with secrets in it (osProfile.customData)
// and connection strings under names that nobody can list. userData is meant
// to be read here.
var toldProperties = members{
	"hardwareProfile":         {"vmSize": nil},
	"storageProfile":          {"imageReference": imageReference, "osDisk": disk, "dataDisks": disk},
	"osProfile":               {"computerName": nil, "adminUsername": nil, "linuxConfiguration": {"disablePasswordAuthentication": nil}},
	"securityProfile":         {"securityType": nil, "encryptionAtHost": nil, "uefiSettings": {"secureBootEnabled": nil, "vTpmEnabled": nil}},
	"licenseType":             nil,
	"priority":                nil,
	"evictionPolicy":          nil,
	"userData":                nil,
	"availabilitySet":         {"id": nil},
	"platformFaultDomain":     nil,
	"proximityPlacementGroup": {"id": nil},
	"virtualMachineScaleSet":  {"id": nil},
}

var (
	imageReference = members{"publisher": nil, "offer": nil, "sku": nil, "version": nil, "exactVersion": nil, "id": nil}
	disk           = members{"name": nil, "lun": nil, "osType": nil, "caching": nil, "createOption": nil, "diskSizeGB": nil, "writeAcceleratorEnabled": nil, "managedDisk": {"id": nil, "storageAccountType": nil}}
)

// members is a tree of names; they compare without case.
type members map[string]members

// told returns what of a JSON value the members let through, nil for nothing:
// of an object those members, of an array that of each of its elements.
func told(raw json.RawMessage, m members) any {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) == nil && list != nil {
		out := []any{}
		for _, v := range list {
			if t := told(v, m); t != nil {
				out = append(out, t)
			}
		}
		return out
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil
	}
	out := map[string]any{}
	for name, v := range object {
		below, ok := m.find(name)
		switch {
		case !ok:
		case below == nil:
			if plain(v) {
				out[name] = v
			}
		default:
			if t := told(v, below); t != nil {
				out[name] = t
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func (m members) find(name string) (below members, ok bool) {
	for n, b := range m {
		if strings.EqualFold(n, name) {
			return b, true
		}
	}
	return nil, false
}

// plain reports whether a value is neither object nor array: where one word is
// expected, nothing is hidden in it.
func plain(v json.RawMessage) bool {
	return len(v) > 0 && v[0] != '{' && v[0] != '['
}
