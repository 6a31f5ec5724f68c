package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// AttestedLife is how long an attested document says that it is good.
const AttestedLife = 6 * time.Hour

const actionAttest = "Innate.Fleet/instances/attest/action"

// attested is the document: its members and their spelling are those that
// verifiers of the instance metadata service read.
type attested struct {
	LicenseType    string        `json:"licenseType"`
	Nonce          string        `json:"nonce"`
	Plan           attestedPlan  `json:"plan"`
	SKU            string        `json:"sku"`
	SubscriptionID string        `json:"subscriptionId"`
	TimeStamp      attestedTimes `json:"timeStamp"`
	VMID           string        `json:"vmId"`
}

type attestedPlan struct {
	Name      string `json:"name"`
	Product   string `json:"product"`
	Publisher string `json:"publisher"`
}

type attestedTimes struct {
	CreatedOn string `json:"createdOn"`
	ExpiresOn string `json:"expiresOn"`
}

const attestedLayout = "01/02/06 15:04:05 -0000"

var nonce = regexp.MustCompile(`^[A-Za-z0-9]{0,32}$`)

// Attest returns a signed statement of what a resource placed on the host is.
// With one, a program can prove to others that it is that resource: so it is
// given to those alone whom the caller rules let have it, like a token.
func (f *Fleet) Attest(ctx context.Context, h Host, r fleetapi.AttestRequest) (fleetapi.AttestResponse, error) {
	ev := f.asked(ctx, h, actionAttest)
	workload, c, err := f.entitled(ctx, h, &ev, r.Workload, r.Placement, r.Evidence, r.Caller)
	if err == nil && !nonce.MatchString(r.Nonce) {
		err = problem.Errorf(problem.Invalid, "the nonce is not up to 32 letters and digits")
	}
	if err != nil {
		return fleetapi.AttestResponse{}, f.refuse(ctx, ev, err)
	}
	// It names no identity, and so may be of any.
	j, err := f.judge(ctx, h, workload, c, evidence.Want{Audience: fleetapi.AudienceAttest, Named: true})
	ev.Reason = j.reason()
	if err != nil {
		return fleetapi.AttestResponse{}, f.refuse(ctx, ev, err)
	}
	res, err := f.Store.Resource(ctx, h.Tenant, workload.Key())
	if problem.Is(err, problem.NotFound) { // deleted since
		return fleetapi.AttestResponse{}, f.refuse(ctx, ev, err)
	}
	if err != nil {
		return fleetapi.AttestResponse{}, fmt.Errorf("reading %s: %w", workload, err)
	}
	text, err := json.Marshal(f.attested(res, r.Nonce))
	if err != nil {
		return fleetapi.AttestResponse{}, fmt.Errorf("encoding an attested document: %w", err)
	}
	signed, err := f.Ring.SignDocument(ctx, h.Tenant, f.Names.Domain, text)
	if err != nil {
		return fleetapi.AttestResponse{}, err
	}
	if err := f.Store.Record(ctx, ev); err != nil {
		return fleetapi.AttestResponse{}, fmt.Errorf("recording an attested document: %w", err)
	}
	return fleetapi.AttestResponse{Signature: signed}, nil
}

func (f *Fleet) attested(r arm.Resource, nonce string) attested {
	now := f.Now().UTC()
	if nonce == "" {
		nonce = now.Format("20060102150405")
	}
	d := arm.Document(r.Body)
	out := attested{
		Nonce: nonce, SubscriptionID: r.ID.Subscription(), VMID: r.UID,
		TimeStamp: attestedTimes{CreatedOn: now.Format(attestedLayout), ExpiresOn: now.Add(AttestedLife).Format(attestedLayout)},
	}
	// These are the author's own: what is not as expected is left out.
	_ = json.Unmarshal(d.Member("plan"), &out.Plan)
	props := object(d.Member("properties"))
	_ = json.Unmarshal(props.Member("licenseType"), &out.LicenseType)
	_ = json.Unmarshal(object(object(props.Member("storageProfile")).Member("imageReference")).Member("sku"), &out.SKU)
	return out
}

// object reads a JSON object; nil for what is none.
func object(raw json.RawMessage) arm.Document {
	var d arm.Document
	if json.Unmarshal(raw, &d) != nil {
		return nil
	}
	return d
}
