package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
)

// through masks text, written in pieces of n bytes.
func through(t testing.TB, s *Set, text string, n int) string {
	t.Helper()
	var out strings.Builder
	w := s.Writer(&out)
	for len(text) > 0 {
		k := min(n, len(text))
		if got, err := w.Write([]byte(text[:k])); got != k || err != nil {
			t.Fatalf("Write = %d, %v", got, err)
		}
		text = text[k:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestMasks(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values     []string
		text, want string
	}{
		{[]string{"hunter2"}, "the password is hunter2.\n", "the password is ***.\n"},
		{[]string{"hunter2"}, "hunterhunter2hunter", "hunter***hunter"},
		{[]string{"hunter2"}, "hunter2hunter2", "***"},                   // how often is nobody's business
		{[]string{"abcdef", "defghi"}, "abcdefghi", "***"},               // neither half is left of two that overlap
		{[]string{"abcd", "abcdefgh"}, "abcdefg abcdefgh", "***efg ***"}, // the longer one is waited for
		{[]string{"aaaa"}, "aaa aaaaaaa", "aaa ***"},
		{[]string{"secret\n"}, "secret", "***"}, // shells take the line end off
		{[]string{"one line\nand\nanother"}, "x another y one line and", "x *** y *** and"},
		{[]string{"one line\r\nanother"}, "one line\nanother", "***\n***"}, // as a terminal changes line ends
		{[]string{"abc", ""}, "abc", "abc"},                                // too short: see Maskable
		{nil, "\x00\xff as it is", "\x00\xff as it is"},
		{[]string{"p'w'd"}, `+ login 'p'\''w'\''d'`, `+ login '***'`},
	} {
		for n := 1; n <= len(tt.text); n++ {
			if got := through(t, New(tt.values...), tt.text, n); got != tt.want {
				t.Errorf("%q of %q, %d bytes at a time = %q, want %q", tt.values, tt.text, n, got, tt.want)
			}
		}
	}
}

// TestMasksWhatProgramsMakeOfValues: for each encoder, with neighbours, no value
// shows.
func TestMasksWhatProgramsMakeOfValues(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"hunter2!", "p&ss/w+rd <é> \"q\" \\", "line one\nline two of the key\n", strings.Repeat("long value ", 30), "日本語のパスワード😀"} {
		set := New(value)
		std := base64.StdEncoding.EncodeToString([]byte(value))
		quoted, err := json.Marshal(map[string]string{"v": value})
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			"base64": std, "base64url": base64.RawURLEncoding.EncodeToString([]byte(value)),
			"query": url.QueryEscape(value), "path": url.PathEscape(value), "form": url.Values{"v": {value}}.Encode()[2:], "hex": fmt.Sprintf("%x", value),
			"HEX": fmt.Sprintf("%X", value), "json": strings.TrimSuffix(strings.TrimPrefix(string(quoted), `{"v":"`), `"}`),
		} {
			if got := through(t, set, "before "+text+" after", 3); got != "before *** after" {
				t.Errorf("%s of %q = %q, want it masked whole", name, value, got)
			}
		}
		for _, user := range []string{"", "a", "al", "ali"} { // the three places in a group
			text := base64.StdEncoding.EncodeToString([]byte(user + ":" + value + "/" + user))
			got := through(t, set, text, 5)
			// Four characters a side may hold bits of the neighbours.
			if left := strings.Replace(got, Mark, "", 1); left == got || len(left) > 4+2*(len(user)+3) {
				t.Errorf("base64 of %q beside %q = %q", value, user, got)
			}
		}
		for _, columns := range []int{64, 76} {
			var wrapped strings.Builder
			for i := 0; i < len(std); i += columns {
				fmt.Fprintln(&wrapped, std[i:min(i+columns, len(std))])
			}
			if got := through(t, set, wrapped.String(), 7); strings.Trim(got, "*\n") != "" && len(strings.Trim(got, "*\n=")) > 1 {
				t.Errorf("base64 in %d columns of %q = %q", columns, value, got)
			}
		}
	}
}

// TestPromptsAppearAtOnce: only what may become a value waits, and never as
// much as a value.
func TestPromptsAppearAtOnce(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ value, text, want string }{
		{"hunter2", "Continue? [y/N] ", "Continue? [y/N] "},
		{"hunter2", "25%\r", "25%\r"},
		{"hunter2", "a hunter", "a "}, // it may still become the value
		{"hunter2", "a hunter2", "a ***"},
		{"hunter2", "a hunter3", "a hunter3"},
	} {
		var out strings.Builder
		w := newSet([]string{tt.value}).Writer(&out)
		if _, err := w.Write([]byte(tt.text)); err != nil || out.String() != tt.want {
			t.Errorf("after %q there is %q, %v; want %q", tt.text, out.String(), err, tt.want)
		}
		if len(w.held) >= len(tt.value) {
			t.Errorf("after %q it holds %d bytes, of a value with %d", tt.text, len(w.held), len(tt.value))
		}
	}
}

func TestMaskable(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{"": false, "abc": false, "abc\n\n": false, "abcd": true} {
		if got := Maskable(value); got != want {
			t.Errorf("Maskable(%q) = %v, want %v", value, got, want)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestErrorOfTheWriterBelow(t *testing.T) {
	t.Parallel()
	if _, err := New("hunter2").Writer(full{}).Write([]byte("text")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write = %v, want the writer's error", err)
	}
}

// naive masks the whole text at once: the rule, without a stream.
func naive(texts []string, text string) string {
	hide := make([]bool, len(text))
	for _, s := range texts {
		for at := 0; at+len(s) <= len(text); at++ {
			if text[at:at+len(s)] == s {
				for i := range len(s) {
					hide[at+i] = true
				}
			}
		}
	}
	var out []byte
	for i, h := range hide {
		switch {
		case !h:
			out = append(out, text[i])
		case i == 0 || !hide[i-1]:
			out = append(out, Mark...)
		}
	}
	return string(out)
}

// FuzzWriter: whatever the pieces, the stream is masked as the whole would be;
// no value is left in it; what has no value in it goes through unchanged.
func FuzzWriter(f *testing.F) {
	f.Add("hunter2", "unter2h", "hunterhunter2hunter2h", uint8(1))
	f.Add("aaaa", "aaaaaa", "aaaaaaabaaaaa", uint8(2))
	f.Add("line one\nline two\n", "a b&c", "eCBsaW5lIG9uZQpsaW5lIHR3bwo= a+b%26c line two", uint8(5))
	f.Add("\x00\xff\xfe\x00", "é<x>", `\u00e9\u003cx\u003e`, uint8(3))
	f.Fuzz(func(t *testing.T, one, two, text string, n uint8) {
		if len(one)+len(two) > 200 || len(text) > 2000 {
			return // naive is slow
		}
		texts := append(Forms(one), Forms(two)...)
		set := New(one, two)
		for _, text := range []string{text, text + one + text + two + one, one[:len(one)/2] + text + two[len(two)/2:]} {
			got := through(t, set, text, int(n)+1)
			if want := naive(texts, text); got != want {
				t.Fatalf("%q and %q in %q, %d at a time:\n got %q\nwant %q", one, two, text, n+1, got, want)
			}
			for _, s := range texts {
				// A value with the mark's character in it may seem to be there.
				if !strings.Contains(s, "*") && strings.Contains(got, s) {
					t.Fatalf("%q shows in %q", s, got)
				}
			}
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	set := New(strings.Repeat("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcw\n", 40), "hunter2hunter2")
	text := bytes.Repeat([]byte("2026-01-01T00:00:00Z building package 17 of 300, which is a line as builds print\n"), 400)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := set.Writer(new(bytes.Buffer)).Write(text); err != nil {
			b.Fatal(err)
		}
	}
}
