package seal_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/seal"
)

// record is the context that the tests seal for.
var record = seal.Context{Tenant: "t1", Kind: "secret", ID: "vault/db", Version: "v1"}

const plain = "hunter2, the plain text"

func newBox(t testing.TB) *seal.Box {
	t.Helper()
	root, err := seal.CreateFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	return &seal.Box{Root: root}
}

func sealed(t testing.TB, b *seal.Box, c seal.Context, text string) []byte {
	t.Helper()
	out, err := b.Seal(t.Context(), c, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSealAndOpen(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	for _, text := range []string{"", "x", plain, strings.Repeat("long ", 100_000)} {
		s := sealed(t, b, record, text)
		if len(text) > 1 && bytes.Contains(s, []byte(text)) {
			t.Errorf("Seal of %d bytes holds them in clear", len(text))
		}
		got, err := b.Open(t.Context(), record, s)
		if err != nil || string(got) != text {
			t.Errorf("Open(Seal(%d bytes)) = %d bytes, %v", len(text), len(got), err)
		}
	}
	if bytes.Equal(sealed(t, b, record, plain), sealed(t, b, record, plain)) {
		t.Error("two seals of one text are equal; a reader of the database could tell that two secrets are")
	}
}

func TestSealedValueOpensOnlyForItsRecord(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	ab := seal.Context{Tenant: "a", Kind: "b", ID: "c", Version: "d"}
	for _, tt := range []struct {
		name     string
		for_, as seal.Context
	}{
		{"other tenant", record, seal.Context{Tenant: "t2", Kind: "secret", ID: "vault/db", Version: "v1"}},
		{"other kind", record, seal.Context{Tenant: "t1", Kind: "key", ID: "vault/db", Version: "v1"}},
		{"other id", record, seal.Context{Tenant: "t1", Kind: "secret", ID: "vault/db2", Version: "v1"}},
		{"other version", record, seal.Context{Tenant: "t1", Kind: "secret", ID: "vault/db", Version: "v2"}},
		{"other case", record, seal.Context{Tenant: "T1", Kind: "secret", ID: "vault/db", Version: "v1"}},
		{"no context", record, seal.Context{}},
		{"no version", record, seal.Context{Tenant: "t1", Kind: "secret", ID: "vault/db"}},
		// The same letters, cut elsewhere.
		{"tenant runs into kind", ab, seal.Context{Tenant: "ab", Kind: "", ID: "c", Version: "d"}},
		{"kind runs into id", ab, seal.Context{Tenant: "a", Kind: "bc", ID: "", Version: "d"}},
		{"id runs into version", ab, seal.Context{Tenant: "a", Kind: "b", ID: "cd", Version: ""}},
		{"fields change places", ab, seal.Context{Tenant: "b", Kind: "a", ID: "c", Version: "d"}},
		{"a length as text", seal.Context{Tenant: "a\x00\x00\x00\x01b"}, seal.Context{Tenant: "a", Kind: "b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := sealed(t, b, tt.for_, plain)
			if _, err := b.Open(t.Context(), tt.for_, s); err != nil {
				t.Fatalf("Open for its own record: %v", err)
			}
			if _, err := b.Open(t.Context(), tt.as, s); err == nil {
				t.Errorf("a value sealed for %+v opens for %+v", tt.for_, tt.as)
			}
		})
	}
}

func TestChangedByteDoesNotOpen(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	s := sealed(t, b, record, plain)
	for i := range s {
		for bit := range 8 {
			bad := bytes.Clone(s)
			bad[i] ^= 1 << bit
			if got, err := b.Open(t.Context(), record, bad); err == nil {
				t.Errorf("with bit %d of byte %d changed it opens to %q", bit, i, got)
			}
		}
	}
	for i := range s {
		if _, err := b.Open(t.Context(), record, s[:i]); err == nil {
			t.Errorf("cut to %d of %d bytes it opens", i, len(s))
		}
	}
	if _, err := b.Open(t.Context(), record, append(bytes.Clone(s), 0)); err == nil {
		t.Error("with a byte more it opens")
	}
}

// TestPartsOfTwoSealsDoNotMix: both halves are good, each for the same record,
// and still belong to different data keys.
func TestPartsOfTwoSealsDoNotMix(t *testing.T) {
	t.Parallel()
	b := newBox(t)
	one, two := sealed(t, b, record, plain), sealed(t, b, record, plain)
	n := 3 + int(one[1])<<8 + int(one[2])
	if _, err := b.Open(t.Context(), record, append(bytes.Clone(one[:n]), two[n:]...)); err == nil {
		t.Error("the data key of one value opens another")
	}
}

func TestOtherRootKeyDoesNotOpen(t *testing.T) {
	t.Parallel()
	s := sealed(t, newBox(t), record, plain)
	_, err := newBox(t).Open(t.Context(), record, s)
	if err == nil || !strings.Contains(err.Error(), "the root key does not fit") {
		t.Errorf("Open under another root key: %v, want an error that says so", err)
	}
}

// bulky is a custody whose wrapped keys do not fit the two bytes of their length.
type bulky struct{}

func (bulky) Wrap(context.Context, []byte, []byte) ([]byte, error)   { return make([]byte, 1<<16), nil }
func (bulky) Unwrap(context.Context, []byte, []byte) ([]byte, error) { return make([]byte, 32), nil }

// TestWrappedKeyTooLongIsRefused: a length cut to 16 bits would make a value
// that nobody can ever open.
func TestWrappedKeyTooLongIsRefused(t *testing.T) {
	t.Parallel()
	b := &seal.Box{Root: bulky{}}
	if _, err := b.Seal(t.Context(), record, []byte(plain)); err == nil {
		t.Error("Seal keeps a wrapped key of 64 KiB, whose length it cannot write")
	}
}

func FuzzOpen(f *testing.F) {
	b := newBox(f)
	good := sealed(f, b, record, plain)
	f.Add(good)
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0})
	f.Add([]byte{1, 0xff, 0xff, 0})
	f.Add(good[:len(good)/2])
	f.Fuzz(func(t *testing.T, s []byte) {
		got, err := b.Open(t.Context(), record, s)
		if err == nil && !bytes.Equal(s, good) {
			t.Errorf("Open(%x) = %q, which nobody sealed", s, got)
		}
		if err != nil && got != nil {
			t.Errorf("Open(%x) fails and still gives %d bytes", s, len(got))
		}
	})
}
