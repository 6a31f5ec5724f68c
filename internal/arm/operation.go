package arm

import (
	"context"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// Operation is a long-running operation as stored: what somebody asked for
// whom no answer could wait. It is one transaction. In that transaction its row
// says that it succeeded; so what a client reads of it is what happened, on
// whatever replica it asks and whatever died.
type Operation struct {
	Tenant string
	// ID is a GUID.
	ID string
	// Target is the resource that it is done to.
	Target resource.ID
	// Method and Action are what was asked: "DELETE", "Namespace/type/delete".
	Method, Action string
	// Principal is who asked, an object id.
	Principal string
	// Status is one of the words below.
	Status string
	// Kind and Message say why it failed.
	Kind    problem.Kind
	Message string
	Started time.Time
	// Ended is zero while it runs.
	Ended time.Time
	// Lease is until when whoever runs it has said that it does. One that runs
	// after it was lost: its process died, and nothing came of it.
	Lease time.Time
}

// What ARM says of an operation.
const (
	InProgress = "InProgress"
	Succeeded  = "Succeeded"
	Failed     = "Failed"
)

// OperationStore is what long-running operations need of the database.
type OperationStore interface {
	// AddOperation writes down that an operation runs. It leaves one that is
	// there.
	AddOperation(ctx context.Context, o Operation, ev audit.Event) error
	// EndOperation writes down how it ended, unless that is known.
	EndOperation(ctx context.Context, o Operation, evs ...audit.Event) error
	// LoseOperation is EndOperation of one whose lease was over at o.Ended.
	LoseOperation(ctx context.Context, o Operation, evs ...audit.Event) error
	// RenewOperation makes its lease longer.
	RenewOperation(ctx context.Context, o Operation, until time.Time) error
	// Operation returns [problem.NotFound] if there is none.
	Operation(ctx context.Context, tenant, id string) (Operation, error)
	// LastOperation returns the one on a resource that began last;
	// [problem.NotFound] if none is remembered.
	LastOperation(ctx context.Context, tenant, targetKey string) (Operation, error)
}

// Polling is how clients of a family of types learn how a long-running
// operation ended.
type Polling int

const (
	// PollNever: the family's clients take the answer for the end, and are made to
	// wait for it (managed identities, data factories, all of Innate's own).
	PollNever Polling = iota
	// PollAsync: Azure-AsyncOperation is the address of the status (Compute).
	PollAsync
	// PollLocation: Location is the address of the result, which is 202 until
	// there is one (resource groups, storage accounts).
	PollLocation
	// PollBody: the resource itself says properties.provisioningState (web
	// apps). A delete would have no resource to ask.
	PollBody
)

const (
	// patience is how long a client waits before an operation goes on without it.
	patience = 20 * time.Second
	// leaseLife is how long an operation counts as run after it was last said.
	leaseLife = 2 * time.Minute
	// manyBelow is how many resources a delete may take with it before it does
	// not make its client wait.
	manyBelow = 500
)
