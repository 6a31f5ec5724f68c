package cursor_test

import (
	"bytes"
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"

	"github.com/innate-id/innate/internal/cursor"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/seal"
)

var reader = cursor.Reader{API: "graph", Tenant: "t", Principal: "p"}

func newSealer(t testing.TB) cursor.Sealer {
	t.Helper()
	root, err := seal.CreateFile(filepath.Join(t.TempDir(), "root.key"))
	if err != nil {
		t.Fatal(err)
	}
	return cursor.Sealer{Box: &seal.Box{Root: root}}
}

func token(t testing.TB, s cursor.Sealer, r cursor.Reader, place string) string {
	t.Helper()
	out, err := s.Token(t.Context(), r, place)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTokenTellsNothing(t *testing.T) {
	t.Parallel()
	s := newSealer(t)
	var lengths []int
	for _, place := range []string{"", "a", "payroll-of-the-board", strings.Repeat("x", 253), strings.Repeat("é", 126)} {
		a, b := token(t, s, reader, place), token(t, s, reader, place)
		raw, err := base64.RawURLEncoding.DecodeString(a)
		if err != nil || a == b || len(place) > 1 && bytes.Contains(raw, []byte(place)) {
			t.Errorf("the tokens of %q are %s and %s, %v", place, a, b, err)
		}
		lengths = append(lengths, len(a))
		if got, err := s.Place(t.Context(), reader, a); err != nil || got != place {
			t.Errorf("Place(Token(%q)) = %q, %v", place, got, err)
		}
	}
	for _, n := range lengths {
		if n != lengths[0] {
			t.Errorf("tokens are %v long, and so tell how long their places are", lengths)
		}
	}
	long := strings.Repeat("x", 2048)
	if got, err := s.Place(t.Context(), reader, token(t, s, reader, long)); err != nil || got != long {
		t.Errorf("a place of %d bytes comes back with %d, %v", len(long), len(got), err)
	}
	if got, err := s.Place(t.Context(), reader, ""); err != nil || got != "" {
		t.Errorf("without a token the place is %q, %v; want the beginning", got, err)
	}
	if _, err := s.Token(t.Context(), reader, strings.Repeat("x", 1<<16)); err == nil {
		t.Error("a place that has no room in a token was put into one")
	}
}

// TestTokenIsItsReadersAlone: nobody goes on from a place that they were not
// given, or made up.
func TestTokenIsItsReadersAlone(t *testing.T) {
	t.Parallel()
	s := newSealer(t)
	good := token(t, s, reader, "place")
	secret, err := s.Box.Seal(t.Context(), seal.Context{Tenant: "t", Kind: "secret", ID: "p", Version: "graph"}, []byte("\x00\x05place"))
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string]string{
		"another tenant's":      token(t, s, cursor.Reader{API: "graph", Tenant: "u", Principal: "p"}, "place"),
		"another principal's":   token(t, s, cursor.Reader{API: "graph", Tenant: "t", Principal: "q"}, "place"),
		"another API's":         token(t, s, cursor.Reader{API: "management", Tenant: "t", Principal: "p"}, "place"),
		"the fields moved":      token(t, s, cursor.Reader{API: "p", Tenant: "t", Principal: "graph"}, "place"),
		"another root key's":    token(t, newSealer(t), reader, "place"),
		"something else sealed": base64.RawURLEncoding.EncodeToString(secret),
		"plain text":            base64.RawURLEncoding.EncodeToString([]byte("after:/subscriptions/s")),
		"cut":                   good[:len(good)-4],
		"longer":                good + "AAAA",
		"with padding":          good + "=",
		"no base64":             "!",
		"a space":               " ",
	} {
		if got, err := s.Place(t.Context(), reader, bad); !problem.Is(err, problem.Invalid) || got != "" {
			t.Errorf("%s: Place = %q, %v; want a refusal", what, got, err)
		}
	}
	for i := range good {
		b := []byte(good)
		if b[i]++; b[i] == 'z'+1 || b[i] == 'Z'+1 || b[i] == '9'+1 {
			b[i] = 'A'
		}
		if got, err := s.Place(t.Context(), reader, string(b)); !problem.Is(err, problem.Invalid) {
			t.Fatalf("with another character at %d, Place = %q, %v", i, got, err)
		}
	}
}

// FuzzPlace: a place is one that was given.
func FuzzPlace(f *testing.F) {
	s := newSealer(f)
	given := map[string]string{"": ""}
	for _, place := range []string{"", "a", "/subscriptions/s"} {
		t := token(f, s, reader, place)
		given[t] = place
		f.Add(t)
	}
	f.Add("AQBB")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := s.Place(t.Context(), reader, text)
		// Line breaks are no part of base64.
		want, ok := given[strings.NewReplacer("\r", "", "\n", "").Replace(text)]
		if err != nil && !problem.Is(err, problem.Invalid) || err == nil && (!ok || got != want) {
			t.Errorf("Place(%q) = %q, %v", text, got, err)
		}
	})
}
