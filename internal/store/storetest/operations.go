package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
)

func operations() []test {
	return []test{
		{"OperationRoundTrip", operationRoundTrip},
		{"OperationEndsOnce", operationEndsOnce},
		{"OperationSucceedsWithItsWriteOrNotAtAll", operationFenced},
		{"OperationIsLostAfterItsLease", operationLost},
		{"LastOperationOnAResource", lastOperation},
		{"SweepForgetsOperations", sweepOperations},
	}
}

// operation is one on a machine that began at noon.
func operation(oid string) arm.Operation {
	return arm.Operation{
		Tenant: tenant, ID: oid, Target: id(machine("G", "VM")), Method: "PUT", Action: "x/write", Principal: "p",
		Status: arm.InProgress, Started: noon, Lease: noon.Add(time.Minute),
	}
}

// ended is o, ended a second after it began.
func ended(o arm.Operation, status string) arm.Operation {
	o.Status, o.Ended = status, o.Started.Add(time.Second)
	if status == arm.Failed {
		o.Kind, o.Message = problem.Conflict, "because"
	}
	return o
}

func (f *fixture) hasOperation(want arm.Operation) {
	f.t.Helper()
	got, err := f.db.Operation(f.t.Context(), tenant, upper(want.ID))
	must(f.t, err)
	same(f.t, "Operation("+want.ID+")", got, want)
}

func operationRoundTrip(t *testing.T, f *fixture) {
	ctx := t.Context()
	o := operation("o1")
	must(t, f.db.AddOperation(ctx, o, *event(tenant, "started")))
	f.hasOperation(o)
	must(t, f.db.RenewOperation(ctx, o, noon.Add(time.Hour)))
	o.Lease = noon.Add(time.Hour)
	f.hasOperation(o)
	must(t, f.db.EndOperation(ctx, ended(o, arm.Failed), *event(tenant, "failed")))
	f.hasOperation(ended(o, arm.Failed))
	same(t, "actions on record", f.actions(tenant), []string{"failed", "started"})
	_, err := f.db.Operation(ctx, other, o.ID)
	refused(t, "Operation(of another tenant)", err, problem.NotFound)
	_, err = f.db.Operation(ctx, tenant, "none")
	refused(t, "Operation(none)", err, problem.NotFound)
}

func operationEndsOnce(t *testing.T, f *fixture) {
	ctx := t.Context()
	o := operation("o1")
	must(t, f.db.AddOperation(ctx, o, *event(tenant, "write")))
	must(t, f.db.EndOperation(ctx, ended(o, arm.Succeeded)))
	must(t, f.db.EndOperation(ctx, ended(o, arm.Failed)))
	must(t, f.db.AddOperation(ctx, o, *event(tenant, "write")))
	must(t, f.db.RenewOperation(ctx, o, noon.Add(time.Hour)))
	f.hasOperation(ended(o, arm.Succeeded))
}

func operationFenced(t *testing.T, f *fixture) {
	ctx := t.Context()
	o := operation("o1")
	end := func(o arm.Operation) error {
		return f.db.Write(ctx, event(tenant, "write"), func(tx arm.Tx) error {
			return errors.Join(tx.PutResource(node(machine("G", o.ID))), tx.EndOperation(ended(o, arm.Succeeded)))
		})
	}
	must(t, f.db.AddOperation(ctx, o, *event(tenant, "write")))
	must(t, end(o))
	f.hasOperation(ended(o, arm.Succeeded))

	// Its beginning is written down after its end.
	late := operation("late")
	must(t, end(late))
	must(t, f.db.AddOperation(ctx, late, *event(tenant, "write")))
	f.hasOperation(ended(late, arm.Succeeded))

	// It was given up: what it writes does not count.
	lost := operation("lost")
	must(t, f.db.AddOperation(ctx, lost, *event(tenant, "write")))
	must(t, f.db.EndOperation(ctx, ended(lost, arm.Failed)))
	refused(t, "a write of an operation that was given up", end(lost), problem.Conflict)
	_, err := f.db.Resource(ctx, tenant, machine("g", "lost"))
	refused(t, "what it wrote", err, problem.NotFound)
	f.hasOperation(ended(lost, arm.Failed))
}

func operationLost(t *testing.T, f *fixture) {
	ctx := t.Context()
	o := operation("o1")
	must(t, f.db.AddOperation(ctx, o, *event(tenant, "write")))
	must(t, f.db.LoseOperation(ctx, ended(o, arm.Failed)))
	f.hasOperation(o) // a second after it began, its lease holds
	lost := ended(o, arm.Failed)
	lost.Ended = noon.Add(2 * time.Minute)
	must(t, f.db.LoseOperation(ctx, lost, *event(tenant, "lost")))
	f.hasOperation(lost)
	same(t, "actions on record", f.actions(tenant), []string{"lost"})
}

func lastOperation(t *testing.T, f *fixture) {
	ctx := t.Context()
	first, second, elsewhere := operation("z"), operation("a"), operation("m")
	second.Started = noon.Add(time.Minute)
	elsewhere.Started, elsewhere.Target = noon.Add(time.Hour), id(machine("G", "VM2"))
	for _, o := range []arm.Operation{second, first, elsewhere} {
		must(t, f.db.AddOperation(ctx, o, *event(tenant, "write")))
	}
	got, err := f.db.LastOperation(ctx, tenant, upper(first.Target.String()))
	must(t, err)
	same(t, "LastOperation", got, second)
	_, err = f.db.LastOperation(ctx, tenant, "/subscriptions/none")
	refused(t, "LastOperation(none)", err, problem.NotFound)
}

func sweepOperations(t *testing.T, f *fixture) {
	ctx := t.Context()
	running, done := operation("running"), ended(operation("done"), arm.Succeeded)
	running.Lease = noon.Add(48 * time.Hour)
	for _, o := range []arm.Operation{running, operation("lost"), done} {
		must(t, f.db.AddOperation(ctx, o, *event(tenant, "write")))
	}
	must(t, f.db.Sweep(ctx, noon.Add(24*time.Hour)))
	f.hasOperation(done)
	must(t, f.db.Sweep(ctx, noon.Add(25*time.Hour)))
	f.hasOperation(running)
	for _, gone := range []string{"lost", "done"} {
		_, err := f.db.Operation(ctx, tenant, gone)
		refused(t, "Operation("+gone+")", err, problem.NotFound)
	}
}
