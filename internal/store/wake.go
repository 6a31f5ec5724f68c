package store

import "sync"

// signal wakes everybody who waits: a channel that is closed once and replaced.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Changed returns a channel that is closed at the next management write that
// this process commits or hears of. Take it before reading, wait after.
func (db *DB) Changed() <-chan struct{} { return db.changed.next() }

// Recorded returns a channel that is closed at the next batch of events that
// this process commits or hears of. Take it before reading, wait after.
func (db *DB) Recorded() <-chan struct{} { return db.recorded.next() }
