package metadata

import (
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Environment is what programs are told that they run in. It is not the public
// cloud's name: some look up by it where to send their tokens.
const Environment = "Innate"

// Interface is what a host says of one network interface of a machine on it.
type Interface struct {
	MAC net.HardwareAddr
	// Addresses are the machine's, each with the length of its network's
	// prefix.
	Addresses []netip.Prefix
}

// instance is the document at /metadata/instance. Every value is a string.
type instance struct {
	Compute compute `json:"compute"`
	Network network `json:"network"`
}

type compute struct {
	AzEnvironment       string          `json:"azEnvironment"`
	CustomData          string          `json:"customData"` // always empty, as there
	EvictionPolicy      string          `json:"evictionPolicy"`
	HostCompatibility   string          `json:"isHostCompatibilityLayerVm"`
	LicenseType         string          `json:"licenseType"`
	Location            string          `json:"location"`
	Name                string          `json:"name"`
	Offer               string          `json:"offer"`
	OSProfile           osProfile       `json:"osProfile"`
	OSType              string          `json:"osType"`
	PlacementGroupID    string          `json:"placementGroupId"`
	PlatformFaultDomain string          `json:"platformFaultDomain"`
	PlatformUpdate      string          `json:"platformUpdateDomain"`
	Priority            string          `json:"priority"`
	Provider            string          `json:"provider"`
	Publisher           string          `json:"publisher"`
	ResourceGroupName   string          `json:"resourceGroupName"`
	ResourceID          string          `json:"resourceId"`
	SecurityProfile     securityProfile `json:"securityProfile"`
	SKU                 string          `json:"sku"`
	SubscriptionID      string          `json:"subscriptionId"`
	Tags                string          `json:"tags"`
	TagsList            []tag           `json:"tagsList"`
	UserData            string          `json:"userData"`
	Version             string          `json:"version"`
	VMID                string          `json:"vmId"`
	VMScaleSetName      string          `json:"vmScaleSetName"`
	VMSize              string          `json:"vmSize"`
	Zone                string          `json:"zone"`
}

type osProfile struct {
	AdminUsername string `json:"adminUsername"`
	ComputerName  string `json:"computerName"`
	NoPassword    string `json:"disablePasswordAuthentication"`
}

type securityProfile struct {
	EncryptionAtHost  string `json:"encryptionAtHost"`
	SecureBootEnabled string `json:"secureBootEnabled"`
	SecurityType      string `json:"securityType"`
	VirtualTPMEnabled string `json:"virtualTpmEnabled"`
}

type tag struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type network struct {
	Interface []networkInterface `json:"interface"`
}

type networkInterface struct {
	IPv4       ipv4   `json:"ipv4"`
	IPv6       ipv6   `json:"ipv6"`
	MACAddress string `json:"macAddress"` // 0022483A0B1C
}

type ipv4 struct {
	IPAddress []ipAddress `json:"ipAddress"`
	Subnet    []subnet    `json:"subnet"`
}

type ipv6 struct {
	IPAddress []ipAddress `json:"ipAddress"`
}

type ipAddress struct {
	PrivateIPAddress string `json:"privateIpAddress"`
	PublicIPAddress  string `json:"publicIpAddress"`
}

type subnet struct {
	Address string `json:"address"`
	Prefix  string `json:"prefix"`
}

// properties is what is read of a virtual machine's own document. Nothing else
// of it is shown: it may have a password in it.
type properties struct {
	EvictionPolicy  string `json:"evictionPolicy"`
	HardwareProfile struct {
		VMSize string `json:"vmSize"`
	} `json:"hardwareProfile"`
	LicenseType string `json:"licenseType"`
	OSProfile   struct {
		AdminUsername      string `json:"adminUsername"`
		ComputerName       string `json:"computerName"`
		LinuxConfiguration struct {
			NoPassword bool `json:"disablePasswordAuthentication"`
		} `json:"linuxConfiguration"`
	} `json:"osProfile"`
	Priority        string `json:"priority"`
	SecurityProfile struct {
		EncryptionAtHost bool   `json:"encryptionAtHost"`
		SecurityType     string `json:"securityType"`
		UEFISettings     struct {
			SecureBootEnabled bool `json:"secureBootEnabled"`
			VTPMEnabled       bool `json:"vTpmEnabled"`
		} `json:"uefiSettings"`
	} `json:"securityProfile"`
	StorageProfile struct {
		ImageReference struct {
			Offer     string `json:"offer"`
			Publisher string `json:"publisher"`
			SKU       string `json:"sku"`
			Version   string `json:"version"`
		} `json:"imageReference"`
		OSDisk struct {
			OSType string `json:"osType"`
		} `json:"osDisk"`
	} `json:"storageProfile"`
	UserData               string `json:"userData"`
	VirtualMachineScaleSet struct {
		ID string `json:"id"`
	} `json:"virtualMachineScaleSet"`
}

// instance answers with the document, or with what is at below in it.
func (d *imds) instance(ev *Event, r *http.Request, below string) (any, error) {
	v, err := documentQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	asText := false
	switch v.Get("format") {
	case "", "json":
	case "text":
		asText = true
	default:
		return nil, problem.Errorf(problem.Invalid, "Query variable 'format' must be json or text")
	}
	c, err := d.place(r, ev)
	if err != nil {
		return nil, err
	}
	in, err := d.Instance(r.Context(), c)
	if err != nil {
		return nil, err
	}
	doc, err := newInstance(in, d.Interfaces)
	if err != nil {
		return nil, err
	}
	return part(doc, below, asText)
}

func newInstance(in fleetapi.Instance, interfaces []Interface) (instance, error) {
	id, err := resource.Parse(in.ID)
	if err != nil {
		return instance{}, &problem.Error{Kind: problem.Unavailable, Detail: "the control plane's answer names no resource", Err: err}
	}
	var p properties
	if len(in.Properties) > 0 {
		// The author may have written other shapes; of those nothing is shown.
		_ = json.Unmarshal(in.Properties, &p)
	}
	provider, _, _ := strings.Cut(in.Type, "/")
	image, security := p.StorageProfile.ImageReference, p.SecurityProfile
	return instance{
		Compute: compute{
			AzEnvironment: Environment, EvictionPolicy: p.EvictionPolicy, HostCompatibility: "false",
			LicenseType: p.LicenseType, Location: in.Location, Name: in.Name, Offer: image.Offer,
			OSProfile: osProfile{
				AdminUsername: p.OSProfile.AdminUsername, ComputerName: p.OSProfile.ComputerName,
				NoPassword: strconv.FormatBool(p.OSProfile.LinuxConfiguration.NoPassword),
			},
			OSType: p.StorageProfile.OSDisk.OSType, Priority: p.Priority, Provider: provider, Publisher: image.Publisher,
			ResourceGroupName: id.Group(), ResourceID: in.ID,
			SecurityProfile: securityProfile{
				EncryptionAtHost:  strconv.FormatBool(security.EncryptionAtHost),
				SecureBootEnabled: strconv.FormatBool(security.UEFISettings.SecureBootEnabled),
				SecurityType:      security.SecurityType,
				VirtualTPMEnabled: strconv.FormatBool(security.UEFISettings.VTPMEnabled),
			},
			SKU: image.SKU, SubscriptionID: id.Subscription(), Tags: tags(in.Tags), TagsList: tagsList(in.Tags),
			UserData: p.UserData, Version: image.Version, VMID: in.UID,
			VMScaleSetName: p.VirtualMachineScaleSet.ID[strings.LastIndexByte(p.VirtualMachineScaleSet.ID, '/')+1:],
			VMSize:         p.HardwareProfile.VMSize,
		},
		Network: newNetwork(interfaces),
	}, nil
}

// tags is "k:v;k2:v2". A value may have both marks in it; [tagsList] has not
// that fault.
func tags(of map[string]string) string {
	parts := make([]string, 0, len(of))
	for _, t := range tagsList(of) {
		parts = append(parts, t.Name+":"+t.Value)
	}
	return strings.Join(parts, ";")
}

func tagsList(of map[string]string) []tag {
	out := make([]tag, 0, len(of))
	for _, k := range slices.Sorted(maps.Keys(of)) {
		out = append(out, tag{k, of[k]})
	}
	return out
}

func newNetwork(interfaces []Interface) network {
	n := network{Interface: []networkInterface{}}
	for _, i := range interfaces {
		out := networkInterface{
			IPv4:       ipv4{IPAddress: []ipAddress{}, Subnet: []subnet{}},
			IPv6:       ipv6{IPAddress: []ipAddress{}},
			MACAddress: strings.ToUpper(strings.ReplaceAll(i.MAC.String(), ":", "")),
		}
		for _, a := range i.Addresses {
			addr := ipAddress{PrivateIPAddress: a.Addr().String()}
			if a.Addr().Is4() {
				out.IPv4.IPAddress = append(out.IPv4.IPAddress, addr)
				out.IPv4.Subnet = append(out.IPv4.Subnet, subnet{a.Masked().Addr().String(), strconv.Itoa(a.Bits())})
			} else {
				out.IPv6.IPAddress = append(out.IPv6.IPAddress, addr)
			}
		}
		n.Interface = append(n.Interface, out)
	}
	return n
}

// part is what is at a path below a document: an object or a list as JSON, a
// single value as text. As text, an object is the list of what is in it.
func part(doc any, below string, asText bool) (any, error) {
	raw, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	var at any
	if err := json.Unmarshal(raw, &at); err != nil {
		return nil, err
	}
	if below != "" {
		for name := range strings.SplitSeq(below, "/") {
			if at = child(at, name); at == nil {
				return nil, problem.Errorf(problem.UnknownType, "Not found")
			}
		}
	}
	text, leaf := at.(string)
	switch {
	case leaf && !asText:
		return nil, problem.Errorf(problem.Invalid, "A single value has no JSON form here: add format=text")
	case leaf:
		return plain(text), nil
	case asText:
		return listing(at), nil
	}
	return at, nil
}

// child is nil if there is none of that name.
func child(of any, name string) any {
	switch of := of.(type) {
	case map[string]any:
		return of[name]
	case []any:
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i >= len(of) || strconv.Itoa(i) != name {
			return nil
		}
		return of[i]
	}
	return nil
}

func listing(of any) plain {
	var names []string
	add := func(name string, v any) {
		if _, leaf := v.(string); !leaf {
			name += "/"
		}
		names = append(names, name)
	}
	switch of := of.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(of)) {
			add(k, of[k])
		}
	case []any:
		for i, v := range of {
			add(strconv.Itoa(i), v)
		}
	}
	return plain(strings.Join(names, "\n"))
}

// documentQuery reads the query of every document but a token.
func documentQuery(raw string) (url.Values, error) {
	v, err := values(raw)
	if err != nil {
		return nil, err
	}
	if err := once(v); err != nil {
		return nil, err
	}
	if v.Get("api-version") == "" {
		return nil, problem.Errorf(problem.MissingAPIVersion, "api-version is missing")
	}
	t, err := date(v.Get("api-version"))
	if err != nil {
		return nil, err
	}
	if t.Before(time.Date(2017, 3, 1, 0, 0, 0, 0, time.UTC)) {
		return nil, problem.Errorf(problem.BadAPIVersion, "api-version is older than the first")
	}
	return v, nil
}

// documentProblem is how every document but a token is refused.
type documentProblem struct {
	Error string `json:"error"`
	// Newest is there when the version was not understood.
	Newest []string `json:"newest-versions,omitempty"`
}

func documentError(p *problem.Error) (int, any) {
	row, ok := imdsTable[p.Kind]
	if !ok {
		row = imdsTable[problem.Internal]
	}
	out := documentProblem{Error: p.Detail}
	if row.status == http.StatusBadRequest {
		out.Error = "Bad request. " + p.Detail
	}
	switch p.Kind {
	case problem.MissingAPIVersion, problem.BadAPIVersion:
		out.Error = "Bad request. api-version is invalid or was not specified in the request. A date was expected, YYYY-MM-DD, from " + imdsKnown[0] + " on."
		out.Newest = slices.Clone(imdsKnown[len(imdsKnown)-3:])
		slices.Reverse(out.Newest)
	}
	return row.status, out
}
