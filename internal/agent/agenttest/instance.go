package agenttest

import (
	"encoding/json"
	"net/http"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// Describe sets what a placed resource is and says on the stream that it
// changed.
func (c *ControlPlane) Describe(in fleetapi.Instance) int64 {
	return c.change(fleetapi.Change{Resources: []string{in.ID}}, func() { c.instances[in.ID] = in })
}

func (c *ControlPlane) serveInstance(w http.ResponseWriter, r *http.Request) {
	var req fleetapi.InstanceRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad body"))
		return
	}
	in, err := c.placed(req.Workload, req.Placement)
	if err != nil {
		fail(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(in)
}

// serveAttest signs nothing: what it gives says what would be signed.
func (c *ControlPlane) serveAttest(w http.ResponseWriter, r *http.Request) {
	var req fleetapi.AttestRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, problem.Errorf(problem.Invalid, "bad body"))
		return
	}
	in, err := c.placed(req.Workload, req.Placement)
	if err != nil {
		fail(w, err)
		return
	}
	_ = json.NewEncoder(w).Encode(fleetapi.AttestResponse{Signature: []byte("signed:" + in.UID + ":" + req.Nonce)})
}

// placed finds a resource by its placement.
func (c *ControlPlane) placed(workload, placement string) (fleetapi.Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.placements {
		if p.Name == placement && p.Resource == workload {
			in, ok := c.instances[workload]
			if !ok {
				return in, problem.Errorf(problem.NotFound, "%s does not exist", workload)
			}
			in.Revision = c.revision
			return in, nil
		}
	}
	return fleetapi.Instance{}, problem.Errorf(problem.CallerRefused, "no placement on this host says so")
}
