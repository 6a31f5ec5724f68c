// Package mask keeps secrets out of a stream of output: every occurrence of a
// value, in the forms that programs print values in, is replaced by "***".
//
// What a newcomer would get wrong: a stream has no lines and no words. A value
// may arrive in two writes, a byte at a time, or overlapping another one; and a
// prompt without a line end must appear at once. So what is held back is not a
// line but exactly the bytes that may still become a value: the longest end of
// the stream with which some value begins (an Aho-Corasick automaton's state).
//
// It is a net under careless programs, not a wall against hostile ones: a value
// reversed, encrypted or printed one letter a line goes through.
package mask

import (
	"io"
	"slices"
	"strings"
)

// Mark is what stands for a secret.
const Mark = "***"

// MinLen is how many bytes a text must have to be masked. Shorter ones are in
// everything that programs print.
const MinLen = 4

// Maskable reports whether a value is long enough to be masked.
func Maskable(value string) bool { return len(strings.TrimSpace(value)) >= MinLen }

// Set is what is to be masked. It is read-only once made, and many writers may
// share it.
type Set struct {
	// The trie of all texts: one element a node, the root first. A child is
	// found by following next from first: most nodes have one.
	char        []byte
	first, next []int32
	fail        []int32 // the node of the longest proper end that is in the trie
	depth       []int32
	longest     []int32 // the longest text that ends here; 0 is none
	top         [256]int32
}

// New returns what masks values, in all [Forms].
func New(values ...string) *Set {
	var texts []string
	for _, v := range values {
		texts = append(texts, Forms(v)...)
	}
	return newSet(texts)
}

func newSet(texts []string) *Set {
	s := &Set{}
	s.node(0, 0)
	for _, t := range texts {
		s.add(t)
	}
	s.link()
	return s
}

func (s *Set) node(char byte, depth int32) int32 {
	s.char, s.depth = append(s.char, char), append(s.depth, depth)
	s.first, s.next = append(s.first, 0), append(s.next, 0)
	s.fail, s.longest = append(s.fail, 0), append(s.longest, 0)
	return int32(len(s.char) - 1)
}

func (s *Set) add(text string) {
	at := int32(0)
	for i := range len(text) {
		to := s.child(at, text[i])
		if to == 0 {
			to = s.node(text[i], int32(i+1))
			s.next[to], s.first[at] = s.first[at], to
			if at == 0 {
				s.top[text[i]] = to
			}
		}
		at = to
	}
	s.longest[at] = int32(len(text))
}

// child is the node after at for c; 0 if there is none.
func (s *Set) child(at int32, c byte) int32 {
	if at == 0 {
		return s.top[c]
	}
	for n := s.first[at]; n != 0; n = s.next[n] {
		if s.char[n] == c {
			return n
		}
	}
	return 0
}

// link fills fail and longest, nearest to the root first.
func (s *Set) link() {
	queue := []int32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for n := s.first[at]; n != 0; n = s.next[n] {
			if at != 0 {
				s.fail[n] = s.step(s.fail[at], s.char[n])
			}
			if s.longest[n] == 0 {
				s.longest[n] = s.longest[s.fail[n]]
			}
			queue = append(queue, n)
		}
	}
}

// step is the state after c in state at.
func (s *Set) step(at int32, c byte) int32 {
	for {
		if n := s.child(at, c); n != 0 || at == 0 {
			return n
		}
		at = s.fail[at]
	}
}

// open is the state without what no text can lengthen any more.
func (s *Set) open(at int32) int32 {
	for at != 0 && s.first[at] == 0 {
		at = s.fail[at]
	}
	return at
}

// Writer writes to another writer what is written to it, masked. It is for one
// goroutine.
type Writer struct {
	to  io.Writer
	set *Set

	state  int32
	base   int64  // where held begins in the stream
	held   []byte // what is not written yet
	spans  []span // of what is to be masked; ordered, and apart from each other
	masked bool   // the last byte before base was masked
	out    []byte
}

// span is [from, to) of the stream.
type span struct{ from, to int64 }

// Writer returns a writer that masks s on the way to w.
func (s *Set) Writer(w io.Writer) *Writer { return &Writer{to: w, set: s} }

// Write writes all of p but an end with which a value may begin. It holds back
// fewer bytes than the longest value has, and nothing of what cannot be one.
func (w *Writer) Write(p []byte) (int, error) {
	at := w.base + int64(len(w.held))
	w.held = append(w.held, p...)
	for _, c := range p {
		at++
		w.state = w.set.step(w.state, c)
		if n := w.set.longest[w.state]; n > 0 {
			w.cover(span{at - int64(n), at})
		}
		w.state = w.set.open(w.state)
	}
	return len(p), w.settle(at - int64(w.set.depth[w.state]))
}

// Close writes what is held back: the stream has ended, so it is no value. It
// does not close the writer below.
func (w *Writer) Close() error {
	w.state = 0
	return w.settle(w.base + int64(len(w.held)))
}

// cover adds a span that ends where the stream does.
func (w *Writer) cover(s span) {
	for len(w.spans) > 0 && w.spans[len(w.spans)-1].to >= s.from {
		last := w.spans[len(w.spans)-1]
		s.from = min(s.from, last.from)
		w.spans = w.spans[:len(w.spans)-1]
	}
	w.spans = append(w.spans, s)
}

// settle writes what is held up to end.
func (w *Writer) settle(end int64) error {
	w.out = w.out[:0]
	at, done := w.base, 0
	for ; done < len(w.spans) && w.spans[done].from < end; done++ {
		s := &w.spans[done]
		w.plain(at, s.from)
		if !w.masked {
			w.out = append(w.out, Mark...)
		}
		w.masked = true
		if at = min(s.to, end); s.to > end {
			s.from = end
			break
		}
	}
	w.plain(at, end)
	w.spans = slices.Delete(w.spans, 0, done)
	n := copy(w.held, w.held[end-w.base:])
	clear(w.held[n:])
	w.held, w.base = w.held[:n], end
	if len(w.out) == 0 {
		return nil
	}
	_, err := w.to.Write(w.out)
	return err
}

// plain puts out [from, to) of the stream as it is.
func (w *Writer) plain(from, to int64) {
	if from < to {
		w.out = append(w.out, w.held[from-w.base:to-w.base]...)
		w.masked = false
	}
}
