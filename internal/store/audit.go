package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/problem"
)

// maxTenant is the longest tenant that an event may name, in bytes. A request
// may name any tenant, and its refusal is recorded under that name.
const maxTenant = 256

// Record commits events; it returns when they are on disk.
func (db *DB) Record(ctx context.Context, evs ...audit.Event) error {
	if len(evs) == 0 {
		return ctx.Err()
	}
	events, err := db.dated(evs...)
	if err != nil {
		return err
	}
	return db.commits.submit(ctx, &job{events: events})
}

// dated returns a copy of evs in which every event has a time. It refuses what
// could not be recorded: in a group one event must not fail the others.
func (db *DB) dated(evs ...audit.Event) ([]audit.Event, error) {
	evs = slices.Clone(evs)
	for i := range evs {
		ev := &evs[i]
		if ev.At.IsZero() {
			ev.At = db.now()
		}
		if y := ev.At.UTC().Year(); y < 0 || y > 9999 {
			return nil, problem.Errorf(problem.Invalid, "the event's year %d has no written form", y)
		}
		if len(ev.Tenant) > maxTenant {
			return nil, problem.Errorf(problem.Invalid, "the event's tenant is %d bytes long; at most %d are allowed", len(ev.Tenant), maxTenant)
		}
		if err := checkText(ev.Tenant); err != nil {
			return nil, err
		}
	}
	return evs, nil
}

type head struct {
	chain string
	seq   int64
	hash  string
	at    int64 // when it was committed, in ms
}

func scanHead(r row) (head, error) {
	var h head
	err := r.Scan(&h.chain, &h.seq, &h.hash, &h.at)
	return h, err
}

const chainHead = `SELECT chain, seq, hash, at_ms FROM audit_chain WHERE tenant = $1 AND chain = $2`

// advanceChain changes no row if somebody else has advanced the chain.
const advanceChain = `
	INSERT INTO audit_chain (tenant, chain, seq, hash, at_ms) VALUES ($1, $2, $3, $4, $5)
	ON CONFLICT (tenant, chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, at_ms = excluded.at_ms
	WHERE audit_chain.seq = excluded.seq - 1`

const putBatch = `INSERT INTO audit_batch (tenant, chain, seq, prev, hash, body, at_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)`

// appendBatch adds events to a chain as its next batch, committed now. It
// returns [errForked] when another process did so at the same time.
func appendBatch(ctx context.Context, q querier, tenant, chain string, events []audit.Event, now time.Time) error {
	last, err := one(ctx, q, nil, scanHead, chainHead, tenant, chain)
	if err != nil {
		return fmt.Errorf("reading the head of audit chain %s: %w", chain, err)
	}
	b, err := audit.Chained(tenant, chain, last.seq, last.hash, events)
	if err != nil {
		return err
	}
	// A clock that was set back must not hide a batch from who reads from a
	// time on: what follows in a chain is not older.
	committed := max(ms(now), last.at)
	n, err := exec(ctx, q, advanceChain, b.Tenant, b.Chain, b.Seq, b.Hash, committed)
	if err != nil {
		return fmt.Errorf("advancing audit chain %s: %w", chain, err)
	}
	if n == 0 {
		return errForked
	}
	if _, err := exec(ctx, q, putBatch, b.Tenant, b.Chain, b.Seq, b.Prev, b.Hash, b.Body, committed); err != nil {
		return fmt.Errorf("appending to audit chain %s: %w", chain, err)
	}
	return nil
}

const chainHeads = `SELECT chain, seq, hash, at_ms FROM audit_chain WHERE tenant = $1 AND seq > 0 ORDER BY chain`

// Heads returns the number of the last batch of each of the tenant's chains.
func (db *DB) Heads(ctx context.Context, tenant string) (map[string]int64, error) {
	heads, err := many(ctx, db.read, scanHead, chainHeads, tenant)
	if err != nil {
		return nil, fmt.Errorf("reading the audit chains of tenant %q: %w", tenant, err)
	}
	out := make(map[string]int64, len(heads))
	for _, h := range heads {
		out[h.chain] = h.seq
	}
	return out, nil
}

const firstSince = `
	SELECT seq FROM audit_batch
	WHERE tenant = $1 AND chain = $2 AND at_ms >= $3 ORDER BY at_ms, seq LIMIT 1`

// HeadsBefore returns the number of the last batch of each of the tenant's
// chains that was committed before at (0 if none was), whatever times the events
// in it have: [DB.Batches] after it are what came since.
func (db *DB) HeadsBefore(ctx context.Context, tenant string, at time.Time) (map[string]int64, error) {
	heads, err := db.Heads(ctx, tenant)
	if err != nil {
		return nil, err
	}
	for chain := range heads {
		first, err := one(ctx, db.read, nil, scanned[int64], firstSince, tenant, chain, ms(at))
		if err != nil {
			return nil, fmt.Errorf("finding a time in audit chain %s: %w", chain, err)
		}
		if first > 0 { // else all that there is was before
			heads[chain] = first - 1
		}
	}
	return heads, nil
}

const listBatches = `
	SELECT tenant, chain, seq, prev, hash, body FROM audit_batch
	WHERE tenant = $1 AND chain = $2 AND seq > $3 ORDER BY seq LIMIT $4`

// Batches returns, of each of the tenant's chains, up to max batches after the
// number that after has for it (0 if none), in the order of chain and number.
// A limit that is not positive means all.
func (db *DB) Batches(ctx context.Context, tenant string, after map[string]int64, max int) ([]audit.Batch, error) {
	heads, err := db.Heads(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var out []audit.Batch
	for _, chain := range slices.Sorted(maps.Keys(heads)) {
		if heads[chain] <= after[chain] {
			continue // most chains, most times
		}
		batches, err := many(ctx, db.read, scanBatch, listBatches, tenant, chain, after[chain], limit(max))
		if err != nil {
			return nil, fmt.Errorf("reading audit chain %s: %w", chain, err)
		}
		out = append(out, batches...)
	}
	return out, nil
}

func scanBatch(r row) (audit.Batch, error) {
	var b audit.Batch
	err := r.Scan(&b.Tenant, &b.Chain, &b.Seq, &b.Prev, &b.Hash, &b.Body)
	return b, err
}
