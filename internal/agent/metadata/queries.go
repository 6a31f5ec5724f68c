package metadata

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// queries remembers what the latest queries of one dialect read as: programs
// ask the same again and again. Reading depends on nothing but the text, so
// that it does not matter whose it was.
type queries [64]atomic.Pointer[parsed]

type parsed struct {
	raw   string
	query Query
}

// maxRemembered is the longest query that is remembered, in bytes: no caller
// fills much memory.
const maxRemembered = 512

var querySeed = maphash.MakeSeed()

// parse is [ParseQuery]. What does not read is read again each time. The query
// is shared, and nobody's to change.
func (m *queries) parse(raw string, version func(string) error) (*Query, error) {
	if len(raw) > maxRemembered {
		q, err := ParseQuery(raw, version)
		return &q, err
	}
	at := &m[maphash.String(querySeed, raw)%uint64(len(m))]
	if a := at.Load(); a != nil && a.raw == raw {
		return &a.query, nil
	}
	raw = strings.Clone(raw) // it is a part of the request's head
	q, err := ParseQuery(raw, version)
	a := &parsed{raw, q}
	if err == nil {
		at.Store(a)
	}
	return &a.query, err
}
