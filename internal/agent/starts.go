package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/innate-id/innate/internal/agent/cgroup"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
)

// maxStarts bounds the starts of one caller that live at once, so that one
// program in a loop does not use up the agent.
const maxStarts = 1000

// start is one run of one program. Its secret is kept only as a digest.
type start struct {
	digest    [sha256.Size]byte
	workload  string // resource ID
	placement string // name; empty: any that admits
	uid       string // the placement's; it stays when the workload moves. "" if unknown
	ev        evidence.Evidence
	text      string // ev in words
	// group is the control group that its programs are in; nil where nothing
	// is captured, and for those that were not asked for over a socket.
	group *cgroup.Group
	// within is the path of the control group that its programs are in where
	// that is not the start's own: a container's, or a service's; "" for anywhere.
	within string
}

// sought is the placement that lets this start be what it is.
func (s *start) sought() sought {
	return s.soughtAs(s.ev)
}

// soughtAs is sought for one of the start's programs, with its own evidence.
func (s *start) soughtAs(ev evidence.Evidence) sought {
	return sought{ev: ev, resource: s.workload, placement: s.placement, uid: s.uid}
}

// starts are the runs that live now.
type starts struct {
	mu        sync.Mutex // guards what follows
	byDigest  map[[sha256.Size]byte]*start
	byGroup   map[string]*start // by the name of its group
	perCaller map[string]int
	held      map[*held]bool

	// remove removes the group of a start that is over; gone is false if it is
	// left to the next agent.
	remove func(*cgroup.Group) (gone bool)
}

func newStarts(remove func(*cgroup.Group) (gone bool)) *starts {
	return &starts{remove: remove, byDigest: map[[sha256.Size]byte]*start{}, byGroup: map[string]*start{}, perCaller: map[string]int{}, held: map[*held]bool{}}
}

// add makes a secret for s; release ends it, once or more often.
func (s *starts) add(st *start) (secret string, release func(), err error) {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	secret = base64.RawURLEncoding.EncodeToString(raw)
	st.digest = sha256.Sum256([]byte(secret))
	st.ev.Start = hex.EncodeToString(st.digest[:8])

	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.full(st); err != nil {
		return "", nil, err
	}
	return secret, s.put(st), nil
}

// full refuses a start of who has too many; mu is held.
func (s *starts) full(st *start) error {
	if s.perCaller[st.ev.String()] >= maxStarts {
		return problem.Errorf(problem.Throttled, "this user has %d starts already that run or left something running; end some first", maxStarts)
	}
	return nil
}

// room is full for who is not moved yet: whoever is refused stays where it is.
func (s *starts) room(st *start) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full(st)
}

// put adds a start whose digest is known; mu is held.
func (s *starts) put(st *start) (release func()) {
	st.text = st.ev.String()
	caller := st.text
	s.byDigest[st.digest] = st
	if st.group != nil {
		s.byGroup[st.group.Name()] = st
	}
	s.perCaller[caller]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.byDigest, st.digest)
		if st.group == nil {
			s.less(caller)
			return
		}
		delete(s.byGroup, st.group.Name())
		// Who leaves programs in groups has those groups, and no more than
		// that many.
		go func() {
			if s.remove(st.group) {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.less(caller)
			}
		}()
	})
}

// less counts one start of a caller less; mu is held.
func (s *starts) less(caller string) {
	if s.perCaller[caller]--; s.perCaller[caller] == 0 {
		delete(s.perCaller, caller)
	}
}

// find returns the start with this secret. It is looked up by its digest, so
// that how long the search takes says nothing about any secret.
func (s *starts) find(secret string) (*start, bool) {
	digest := sha256.Sum256([]byte(secret))
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.byDigest[digest]
	if st == nil || subtle.ConstantTimeCompare(st.digest[:], digest[:]) != 1 {
		return nil, false
	}
	return st, true
}

// NewStart makes the secret (IDENTITY_HEADER) of one start of a program that
// is resource, for a caller with evidence ev, which counts as having come
// through the door "run". placement names the placement that must admit it;
// empty means any. The secret holds until release is called, the agent is
// closed, or the placement goes.
func (a *Agent) NewStart(resource string, ev evidence.Evidence, placement string) (header string, release func(), err error) {
	a.mu.Lock()
	serving := a.serving && !a.closed
	a.mu.Unlock()
	if !serving {
		return "", nil, errors.New("making a start: the agent is not running")
	}
	ctx, cancel := context.WithTimeout(a.running, placementsTimeout)
	defer cancel()
	return a.newStart(ctx, resource, ev, placement)
}

func (a *Agent) newStart(ctx context.Context, workload string, ev evidence.Evidence, placement string) (string, func(), error) {
	st, err := a.permitStart(ctx, workload, ev, placement)
	if err != nil {
		return "", nil, err
	}
	return a.starts.add(st)
}

// permitStart is a start that a placement lets be, without its secret yet.
func (a *Agent) permitStart(ctx context.Context, workload string, ev evidence.Evidence, placement string) (*start, error) {
	id, err := resource.Parse(workload)
	if err != nil {
		return nil, err
	}
	// What proves the caller from here on is the secret.
	ev.Door, ev.Grade = RunDoor, evidence.GradeSecret
	st := &start{workload: id.String(), placement: placement, ev: ev}
	p, err := a.feed.find(ctx, st.sought())
	if err != nil {
		return nil, a.startRefusal(st, err)
	}
	st.workload, st.placement, st.uid = p.Resource, p.Name, p.UID
	return st, nil
}

// startRefusal says what is missing without saying what others have.
func (a *Agent) startRefusal(st *start, err error) error {
	if !problem.Is(err, problem.CallerRefused) {
		return err
	}
	a.refused(st.ev.String(), "no placement lets this caller run as the resource asked for")
	return problem.Errorf(problem.CallerRefused, "no placement on this host lets this user run as %s: whoever manages the host adds a placement to %s "+
		"with door %q, that resource, and a selector of this user (%s)", st.workload, a.key.Host(), RunDoor, st.ev.String())
}

// len is how many starts live.
func (s *starts) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byDigest)
}
