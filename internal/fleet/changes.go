package fleet

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/fleetapi"
)

// stream is one agent's change stream.
type stream struct {
	f    *Fleet
	host Host
	// placed are the keys of the resources placed on the host, now or when
	// the stream last looked.
	placed map[string]bool
	send   func(fleetapi.Change) error
}

// Changes sends the host what concerns it of the tenant's changes after a
// revision, until ctx ends, the host is evicted or send fails. Every
// [fleetapi.Heartbeat] it says at least how far it has come.
func (f *Fleet) Changes(ctx context.Context, h Host, serial string, after int64, send func(fleetapi.Change) error) error {
	s := &stream{f: f, host: h, send: send}
	if err := s.look(ctx); err != nil {
		return err
	}
	rev, err := f.Store.Revision(ctx, h.Tenant)
	if err != nil {
		return fmt.Errorf("reading the revision: %w", err)
	}
	if after > rev { // the database is older than what the agent has seen: restored from a backup
		after = rev
		if err := send(fleetapi.Change{Revision: rev, All: true, Placements: true}); err != nil {
			return err
		}
	}
	tick := time.NewTicker(fleetapi.Heartbeat)
	defer tick.Stop()
	for {
		changed := f.Store.Changed()
		if _, err := f.Store.HostOf(ctx, serial); err != nil {
			return err // evicted
		}
		if after, err = s.forward(ctx, after); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
	}
}

// forward sends what happened after a revision, and that nothing else did.
func (s *stream) forward(ctx context.Context, after int64) (int64, error) {
	for {
		cs, err := s.f.Store.Changes(ctx, s.host.Tenant, after, 500)
		if err != nil {
			return after, fmt.Errorf("reading the change feed: %w", err)
		}
		msg := fleetapi.Change{Revision: after}
		if len(cs) > 0 {
			if msg, err = s.message(ctx, cs); err != nil {
				return after, err
			}
			after, msg.More = msg.Revision, true
		}
		if err := s.send(msg); err != nil {
			return after, err
		}
		if len(cs) == 0 {
			return after, nil
		}
	}
}

// message says what of the changes concerns the host.
func (s *stream) message(ctx context.Context, cs []arm.Change) (fleetapi.Change, error) {
	msg := fleetapi.Change{Revision: cs[len(cs)-1].Revision}
	for _, c := range cs {
		if c.Kind == arm.ChangeResource && (c.Key == s.host.ID.Key() || strings.HasPrefix(c.Key, s.host.ID.Key()+"/") || s.placed[ruledKey(c.Key)]) {
			msg.Placements = true
		}
	}
	if msg.Placements {
		if err := s.look(ctx); err != nil {
			return msg, err
		}
	}
	for _, c := range cs {
		switch c.Kind {
		case arm.ChangeAPI:
			// Any workload may have a token of it. It is rare, and a token
			// costs little to get again.
			msg.All = true
		case arm.ChangePrincipal:
			msg.Principals = append(msg.Principals, c.Key)
		case arm.ChangeResource, arm.ChangeIdentity:
			if s.placed[c.Key] {
				msg.Resources = append(msg.Resources, c.Key)
			}
			if on := ruledKey(c.Key); s.placed[on] {
				// What was answered by the rules as they were is asked anew.
				msg.Resources = append(msg.Resources, on)
			}
		}
	}
	return msg, nil
}

// look adds what is placed on the host now to what it knows. It forgets
// nothing: a placement and its resource can go in one revision.
func (s *stream) look(ctx context.Context) error {
	ps, err := s.f.Placements(ctx, s.host)
	if err != nil {
		return err
	}
	if s.placed == nil {
		s.placed = map[string]bool{}
	}
	for _, p := range ps.Placements {
		s.placed[strings.ToLower(p.Resource)] = true
	}
	return nil
}
