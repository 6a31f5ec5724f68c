package store

import (
	"context"
	"fmt"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
)

const operationColumns = `tenant, id, target, method, action, principal, status, problem, message, started_ms, ended_ms, lease_ms`

func scanOperation(r row) (arm.Operation, error) {
	var o arm.Operation
	var target string
	var started, ended, lease int64
	err := r.Scan(&o.Tenant, &o.ID, &target, &o.Method, &o.Action, &o.Principal, &o.Status, &o.Kind, &o.Message, &started, &ended, &lease)
	if err != nil {
		return o, err
	}
	o.Started, o.Ended, o.Lease = at(started), at(ended), at(lease)
	o.Target, err = parseID(target)
	return o, err
}

func operationArgs(o arm.Operation) []any {
	return []any{o.Tenant, fold(o.ID), o.Target.String(), o.Target.Key(), o.Method, o.Action, o.Principal, o.Status, string(o.Kind), o.Message,
		ms(o.Started), ms(o.Ended), ms(o.Lease)}
}

const insertOperation = `
	INSERT INTO operation (tenant, id, target, target_key, method, action, principal, status, problem, message, started_ms, ended_ms, lease_ms)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`

// addOperation leaves a row that is there: the operation ended before its
// beginning was written.
const addOperation = insertOperation + ` ON CONFLICT (tenant, id) DO NOTHING`

// AddOperation writes down that an operation runs, and records ev.
func (db *DB) AddOperation(ctx context.Context, o arm.Operation, ev audit.Event) error {
	return db.operationJob(ctx, "writing down", o, []audit.Event{ev}, func(ctx context.Context, q querier) error {
		_, err := exec(ctx, q, addOperation, operationArgs(o)...)
		return err
	})
}

// endOperation changes nothing of an operation that has ended.
const endOperation = `
	UPDATE operation SET status = $3, problem = $4, message = $5, ended_ms = $6
	WHERE tenant = $1 AND id = $2 AND ended_ms = 0`

// EndOperation writes down how an operation ended, unless that is known, and
// records the events.
func (db *DB) EndOperation(ctx context.Context, o arm.Operation, evs ...audit.Event) error {
	return db.operationJob(ctx, "ending", o, evs, func(ctx context.Context, q querier) error {
		_, err := exec(ctx, q, endOperation, o.Tenant, fold(o.ID), o.Status, string(o.Kind), o.Message, ms(o.Ended))
		return err
	})
}

// loseOperation ends an operation whose lease is over.
const loseOperation = `
	UPDATE operation SET status = $3, problem = $4, message = $5, ended_ms = $6
	WHERE tenant = $1 AND id = $2 AND ended_ms = 0 AND lease_ms < $6`

// LoseOperation is [DB.EndOperation] of an operation whose lease is over; it
// changes nothing of one whose lease was renewed.
func (db *DB) LoseOperation(ctx context.Context, o arm.Operation, evs ...audit.Event) error {
	return db.operationJob(ctx, "giving up", o, evs, func(ctx context.Context, q querier) error {
		_, err := exec(ctx, q, loseOperation, o.Tenant, fold(o.ID), o.Status, string(o.Kind), o.Message, ms(o.Ended))
		return err
	})
}

const renewOperation = `UPDATE operation SET lease_ms = $3 WHERE tenant = $1 AND id = $2 AND ended_ms = 0`

// RenewOperation says that the operation is being run, until then.
func (db *DB) RenewOperation(ctx context.Context, o arm.Operation, until time.Time) error {
	return db.operationJob(ctx, "renewing", o, nil, func(ctx context.Context, q querier) error {
		_, err := exec(ctx, q, renewOperation, o.Tenant, fold(o.ID), ms(until))
		return err
	})
}

func (db *DB) operationJob(ctx context.Context, doing string, o arm.Operation, evs []audit.Event, work func(context.Context, querier) error) error {
	evs, err := db.dated(evs...)
	if err != nil {
		return err
	}
	err = db.commits.submit(ctx, &job{work: func(ctx context.Context, q querier) ([]audit.Event, error) { return evs, work(ctx, q) }})
	if err != nil {
		return fmt.Errorf("%s operation %s: %w", doing, o.ID, err)
	}
	return nil
}

const getOperation = `SELECT ` + operationColumns + ` FROM operation WHERE tenant = $1 AND id = $2`

// Operation returns [problem.NotFound] if the tenant has none with this id.
func (db *DB) Operation(ctx context.Context, tenant, id string) (arm.Operation, error) {
	none := problem.Errorf(problem.NotFound, "there is no operation %q", problem.Clip(id))
	return one(ctx, db.read, none, scanOperation, getOperation, tenant, fold(id))
}

const lastOperation = `SELECT ` + operationColumns + ` FROM operation
	WHERE tenant = $1 AND target_key = $2 ORDER BY started_ms DESC LIMIT 1`

// LastOperation returns the operation on a resource that began last;
// [problem.NotFound] if none is remembered.
func (db *DB) LastOperation(ctx context.Context, tenant, targetKey string) (arm.Operation, error) {
	none := problem.Errorf(problem.NotFound, "there is no operation on %s", targetKey)
	return one(ctx, db.read, none, scanOperation, lastOperation, tenant, fold(targetKey))
}

// putEnd is for an operation of which the beginning may be on its way into the
// database. It changes no row if the operation was given up.
const putEnd = insertOperation + `
	ON CONFLICT (tenant, id) DO UPDATE SET
		status = excluded.status, problem = excluded.problem, message = excluded.message, ended_ms = excluded.ended_ms
	WHERE operation.ended_ms = 0`

// EndOperation ends the operation in the transaction that is all of it.
// [problem.Conflict] if it was given up meanwhile: the transaction must not count.
func (t *writeTx) EndOperation(o arm.Operation) error {
	n, err := t.exec(putEnd, operationArgs(o)...)
	if err != nil {
		return fmt.Errorf("ending operation %s: %w", o.ID, err)
	}
	if n == 0 {
		return problem.Errorf(problem.Conflict, "operation %s took too long and was given up", o.ID)
	}
	return nil
}

// Operations are remembered for a day after their end, as ARM does.
const operationMemory = 24 * time.Hour

const (
	sweepOperations = `DELETE FROM operation WHERE ended_ms > 0 AND ended_ms <= $1`
	// lostOperations are so long over their lease that nobody asked for them.
	lostOperations = `DELETE FROM operation WHERE ended_ms = 0 AND lease_ms <= $1`
)

// forgetOperations is the part of a sweep that is about operations.
func forgetOperations(ctx context.Context, q querier, now time.Time) error {
	for _, stmt := range []string{sweepOperations, lostOperations} {
		if _, err := exec(ctx, q, stmt, ms(now.Add(-operationMemory))); err != nil {
			return fmt.Errorf("forgetting operations: %w", err)
		}
	}
	return nil
}
