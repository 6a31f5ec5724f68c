package metadata

import (
	"math"
	"testing"
)

// What is put together by hand is what encoding/json makes of the struct, to
// the byte.
func TestAnswersAreTheirStructsJSON(t *testing.T) {
	t.Parallel()
	for i, s := range []string{"", "plain", `quo"te`, `back\slash`, "<&>", "tab\t", "line\u2028", "é", "\xff", "\x7f"} {
		for _, body := range []answer{
			&imdsToken{s + "1", s + "2", int64(i), -1, math.MaxInt64, math.MinInt64, s + "7", s + "8"},
			&appServiceToken{s + "1", s + "2", 1795471999, int64(i), s + "5", s + "6"},
			&arcToken{imdsToken{s + "1", s + "2", 3, 4, 5, 6, s + "7", s + "8"}, s, s + "10", s + "11"},
		} {
			want, err := marshal(body)
			if got := body.appendJSON(nil); err != nil || string(got) != string(want) {
				t.Errorf("%T of %q = %s, want %s (%v)", body, s, got, want, err)
			}
		}
	}
}

// Any byte at any place is written as encoding/json writes it.
func TestEachByteIsQuotedAsByJSON(t *testing.T) {
	t.Parallel()
	for at := range 20 {
		for c := range 256 {
			text := []byte("abcdefghijklmnopqrst")
			text[at] = byte(c)
			want, err := marshal(string(text))
			if got := quoted(nil, string(text)); err != nil || string(got) != string(want) {
				t.Errorf("%q is %s, want %s (%v)", text, got, want, err)
			}
		}
	}
}
