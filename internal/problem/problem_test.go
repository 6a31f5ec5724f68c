package problem

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestOfFindsTheProblemThroughWraps(t *testing.T) {
	p := Errorf(NotFound, "no %s here", "secret")
	for _, tt := range []struct {
		err  error
		kind Kind
	}{
		{p, NotFound},
		{fmt.Errorf("reading a secret: %w", p), NotFound},
		{errors.Join(io.EOF, p), NotFound},
		{io.EOF, Internal},
		{&Error{Kind: Denied, Detail: "no", Err: p}, Denied}, // the outermost one counts
	} {
		got := Of(tt.err)
		if got.Kind != tt.kind {
			t.Errorf("Of(%v).Kind = %s, want %s", tt.err, got.Kind, tt.kind)
		}
		if !Is(tt.err, tt.kind) && tt.kind != Internal {
			t.Errorf("Is(%v, %s) = false", tt.err, tt.kind)
		}
	}
}

func TestOfHidesWhatItDoesNotKnow(t *testing.T) {
	cause := errors.New("dial tcp 10.0.0.1: refused")
	p := Of(fmt.Errorf("asking the database: %w", cause))
	if p.Detail != "internal error" {
		t.Errorf("Of(plain error).Detail = %q, want what says nothing", p.Detail)
	}
	if !errors.Is(p, cause) {
		t.Errorf("Of(plain error) lost its cause for the log")
	}
}

func TestIsNeedsAProblem(t *testing.T) {
	if Is(io.EOF, Internal) {
		t.Error("Is(io.EOF, Internal) = true, want false: it carries no problem")
	}
	if Is(nil, Internal) {
		t.Error("Is(nil, Internal) = true")
	}
}

func TestErrorText(t *testing.T) {
	for _, tt := range []struct {
		err  *Error
		want string
	}{
		{Errorf(Invalid, "name %q", "a b"), `invalid: name "a b"`},
		{&Error{Kind: Internal, Detail: "internal error", Err: io.EOF}, "internal: internal error: EOF"},
	} {
		if got := tt.err.Error(); got != tt.want {
			t.Errorf("Error() = %q, want %q", got, tt.want)
		}
	}
	if got := errors.Unwrap(Errorf(Invalid, "100%% of %v", io.EOF)); got != nil {
		t.Errorf("Errorf wraps %v, want nothing: its text goes to the client", got)
	}
}

func TestKindsAreDistinct(t *testing.T) {
	seen := map[Kind]bool{}
	for _, k := range Kinds() {
		if k == "" || seen[k] {
			t.Errorf("Kinds() has %q twice, or empty", k)
		}
		seen[k] = true
	}
}

func TestClipKeepsWholeCharacters(t *testing.T) {
	long := strings.Repeat("é", 200)
	got := Clip(long)
	if len(got) > 210 || !utf8.ValidString(got) || !strings.HasPrefix(got, "éé") || !strings.HasSuffix(got, "é...") {
		t.Errorf("Clip of 200 letters of two bytes = %q", got)
	}
	if odd := "x" + long; !utf8.ValidString(Clip(odd)) {
		t.Errorf("Clip cuts a character in half: %q", Clip(odd))
	}
	if Clip("short") != "short" {
		t.Error("Clip changes a short text")
	}
}

// TestRetryAfterIsNeverTooEarly: whole seconds, rounded up, one at least.
func TestRetryAfterIsNeverTooEarly(t *testing.T) {
	for after, want := range map[time.Duration]string{
		0: "1", -time.Second: "1", time.Nanosecond: "1", time.Second: "1", time.Second + 1: "2", 90 * time.Second: "90",
	} {
		if got := (&Error{Kind: Throttled, After: after}).RetryAfter(); got != want {
			t.Errorf("after %v: %q, want %q", after, got, want)
		}
	}
}
