package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/directory"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/resource"
)

// readings lets the streams of a tenant, which all wake at once, read the feed
// together: a change costs two readings and not two for each agent.
type readings struct{ flights singleflight.Group }

const (
	// feedPage bounds the changes of one reading, readTimeout its time.
	feedPage    = 500
	readTimeout = 5 * time.Second
)

// changes returns what happened in the tenant after a revision, as of a
// reading that began after it was called: one that others began before may
// lack what this caller was woken for.
func (f *Fleet) changes(ctx context.Context, tenant string, after int64) ([]arm.Change, error) {
	cs, mine, err := f.joinReading(ctx, tenant, after)
	if !mine && ctx.Err() == nil {
		cs, _, err = f.joinReading(ctx, tenant, after)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the change feed: %w", err)
	}
	return cs, nil
}

// joinReading takes part in the reading under way, or begins one; mine says
// which. What it returns is the others' too.
func (f *Fleet) joinReading(ctx context.Context, tenant string, after int64) (cs []arm.Change, mine bool, err error) {
	var led bool // written by the flight, read after it
	ch := f.readings.flights.DoChan(fmt.Sprint(tenant, " ", after), func() (any, error) {
		led = true
		// The stream that began may end; the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
		defer cancel()
		return f.Store.Changes(ctx, tenant, after, feedPage)
	})
	select {
	case <-ctx.Done():
		return nil, false, ctx.Err()
	case res := <-ch:
		cs, _ = res.Val.([]arm.Change) // nil with an error
		return cs, led, res.Err
	}
}

// stream is one agent's change stream.
type stream struct {
	f    *Fleet
	host Host
	// placed are the keys of the resources placed on the host, now or when
	// the stream last looked, by the keys whose changes concern them: their own,
	// and that of an instance's scale set.
	placed map[string][]string
	// doubt says that the host may be evicted or another machine by now: at
	// each heartbeat, and whenever the feed says something of the host.
	doubt bool
	// caught says that the agent has had a line without changes since it
	// connected, before which it trusts nothing that it has.
	caught bool
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
	for s.doubt = true; ; {
		changed := f.Store.Changed()
		if after, err = s.forward(ctx, after, serial); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
			s.doubt = true
		}
	}
}

// forward sends what happened after a revision, and that nothing else did.
func (s *stream) forward(ctx context.Context, after int64, serial string) (int64, error) {
	for {
		cs, err := s.f.changes(ctx, s.host.Tenant, after)
		if err != nil {
			return after, err
		}
		if s.doubt = s.doubt || slices.ContainsFunc(cs, s.aboutHost); s.doubt {
			h, err := s.f.Store.HostOf(ctx, serial)
			if err != nil {
				return after, err // evicted
			}
			s.host = h // it may have moved, with its placements
			s.doubt = false
		}
		msg := fleetapi.Change{Revision: after}
		if len(cs) > 0 {
			if msg, err = s.message(ctx, cs); err != nil {
				return after, err
			}
			// A page that is not full is the last: to read once more for nothing
			// would cost each stream as much as the change itself.
			after, msg.More = msg.Revision, len(cs) >= feedPage || !s.caught
		}
		if err := s.send(msg); err != nil {
			return after, err
		}
		s.caught = s.caught || len(cs) == 0
		if !msg.More {
			return after, nil
		}
	}
}

// aboutHost reports whether a change is of the host or its placements.
func (s *stream) aboutHost(c arm.Change) bool {
	return c.Kind == arm.ChangeResource && (c.Key == s.host.ID.Key() || strings.HasPrefix(c.Key, s.host.ID.Key()+"/"))
}

// message says what of the changes concerns the host.
func (s *stream) message(ctx context.Context, cs []arm.Change) (fleetapi.Change, error) {
	msg := fleetapi.Change{Revision: cs[len(cs)-1].Revision}
	for _, c := range cs {
		if s.aboutHost(c) || c.Kind == arm.ChangeResource && s.placed[ruledKey(c.Key)] != nil {
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
			msg.Resources = append(msg.Resources, s.placed[c.Key]...)
			// What was answered by the rules as they were is asked anew.
			msg.Resources = append(msg.Resources, s.placed[ruledKey(c.Key)]...)
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
		s.placed = map[string][]string{}
	}
	for _, p := range ps.Placements {
		id, err := resource.Parse(p.Resource)
		if err != nil {
			return fmt.Errorf("reading placement %s: %w", p.Name, internal(err))
		}
		for _, of := range []string{id.Key(), directory.Holder(id).Key()} {
			if !slices.Contains(s.placed[of], id.Key()) {
				s.placed[of] = append(s.placed[of], id.Key())
			}
		}
	}
	return nil
}
