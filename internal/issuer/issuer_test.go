package issuer_test

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/innate-id/innate/internal/issuer"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/testkit"
	"github.com/innate-id/innate/internal/token"
)

// world is an issuer and who asks it, with a clock of their own.
type world struct {
	*testkit.Issuer
	t    *testing.T
	cfg  issuer.Config
	keys *issuer.Keys
	mu   sync.Mutex
	now  time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{Issuer: testkit.NewIssuer(t), t: t, now: time.Unix(1_790_000_000, 0)}
	w.cfg = issuer.Config{Reach: issuer.Loopback, Roots: x509.NewCertPool(), Now: w.clock}
	w.cfg.Roots.AppendCertsFromPEM(w.PEM())
	w.keys = issuer.New(w.cfg)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// assertion is a token of the issuer, signed now.
func (w *world) assertion() *token.Assertion {
	w.t.Helper()
	a, err := token.ParseAssertion(w.Token(w.Claims(w.clock(), "s", nil)))
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// verify asks for the token's key, and checks with it.
func (w *world) verify(a *token.Assertion) error {
	keys, err := w.keys.Of(w.t.Context(), w.URL, a)
	if err != nil {
		return err
	}
	k, ok := a.Find(keys)
	if !ok {
		return fmt.Errorf("no key %s", a.KeyID)
	}
	_, err = a.Verify(k)
	return err
}

func (w *world) asked(what string, want int64) {
	w.t.Helper()
	if got := w.Asked.Swap(0); got != want {
		w.t.Errorf("%s: the issuer was asked %d times, want %d", what, got, want)
	}
}

// TestKeysAreKept: an issuer is asked once for both documents, then no more
// while its keys are fresh; a new key is found at once, a withdrawn one is gone.
func TestKeysAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.assertion()
	for range 3 {
		if err := w.verify(old); err != nil {
			t.Fatal(err)
		}
	}
	w.asked("three times", 2)
	w.advance(issuer.Again)
	w.Rotate()
	if err := w.verify(w.assertion()); err != nil {
		t.Errorf("with the new key: %v", err)
	}
	w.asked("with a new key", 2)
	if err := w.verify(old); err == nil {
		t.Error("the key that the issuer withdrew verifies")
	}
	w.asked("with the old key", 0) // it was asked a moment ago
	w.advance(issuer.Fresh)
	if err := w.verify(w.assertion()); err != nil {
		t.Error(err)
	}
	w.asked("when the keys are old", 2)
}

// TestUnknownKeysAskSeldom: whoever makes up kids has the issuer asked once in a
// while.
func TestUnknownKeysAskSeldom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, _ := w.Key()
	for i := range 20 {
		a, err := token.ParseAssertion(w.Sign(w.Claims(w.clock(), "s", nil), "RS256", key, fmt.Sprint("made-up-", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.verify(a); err == nil {
			t.Error("a key that is not published verifies")
		}
	}
	w.asked("20 made-up kids", 2)
}

// TestTogetherAskOnce: many tokens at once are one question.
func TestTogetherAskOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.assertion()
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if err := w.verify(a); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.asked("32 at once", 2)
}

// TestIssuerThatIsAway: its keys are used for a while; one that never answered
// has none, and is not asked at each token.
func TestIssuerThatIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.assertion()
	if err := w.verify(a); err != nil {
		t.Fatal(err)
	}
	w.asked("at first", 2)
	w.Serve = func(rw http.ResponseWriter, _ *http.Request) bool { rw.WriteHeader(502); return true }
	w.advance(issuer.Fresh)
	for range 3 {
		if err := w.verify(a); err != nil {
			t.Errorf("while it is away: %v", err)
		}
	}
	w.asked("while it is away", 1)
	w.advance(issuer.Kept)
	for range 3 {
		if err := w.verify(a); !problem.Is(err, problem.Unavailable) || !strings.Contains(err.Error(), "status 502") {
			t.Errorf("when its keys are too old: %v", err)
		}
	}
	w.asked("when its keys are too old", 1)
	w.Serve = nil
	w.advance(issuer.Again)
	if err := w.verify(a); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

// TestHostileIssuers: whatever is answered, it is bounded and goes nowhere else.
func TestHostileIssuers(t *testing.T) {
	t.Parallel()
	inner := testkit.NewIssuer(t) // what an attacker would have us ask
	discovery := func(doc any) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, "openid-configuration") {
				return false
			}
			_ = json.NewEncoder(w).Encode(doc)
			return true
		}
	}
	redirect := func(path, to string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			http.Redirect(w, r, to, http.StatusFound)
			return true
		}
	}
	keys := func(text string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/keys" {
				return false
			}
			_, _ = w.Write([]byte(text))
			return true
		}
	}
	for _, tt := range []struct {
		name, why string
		serve     func(w *world) func(http.ResponseWriter, *http.Request) bool
	}{
		{"a redirect of discovery", "none is followed", func(*world) func(http.ResponseWriter, *http.Request) bool {
			return redirect("openid-configuration", inner.URL+"/.well-known/openid-configuration")
		}},
		{"a redirect of the keys", "none is followed", func(*world) func(http.ResponseWriter, *http.Request) bool {
			return redirect("/keys", strings.TrimSuffix(inner.URL, "/realm")+"/keys")
		}},
		{"another's document", "of the issuer", func(*world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": inner.URL, "jwks_uri": inner.URL})
		}},
		{"a slash more", "of the issuer", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL + "/", "jwks_uri": w.URL})
		}},
		{"keys without TLS", "not at an https URL", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL, "jwks_uri": "http://169.254.169.254/metadata/identity/oauth2/token"})
		}},
		{"keys in a file", "not at an https URL", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL, "jwks_uri": "file:///etc/passwd"})
		}},
		{"keys with a user", "not at an https URL", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL, "jwks_uri": "https://u:p@127.0.0.1/"})
		}},
		{"keys at the metadata service", "its address is link-local", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL, "jwks_uri": "https://169.254.169.254/keys"})
		}},
		{"no keys", "not at an https URL", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL})
		}},
		{"a page", "answers with a page", func(*world) func(http.ResponseWriter, *http.Request) bool {
			return func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Type", "text/html; charset=utf-8")
				return true
			}
		}},
		{"no JSON", "is not JSON", func(*world) func(http.ResponseWriter, *http.Request) bool { return discovery("x") }},
		{"endless discovery", "over 65536 bytes", func(w *world) func(http.ResponseWriter, *http.Request) bool {
			return discovery(map[string]any{"issuer": w.URL, "x": strings.Repeat("x", 100<<10)})
		}},
		{"endless keys", "over 524288 bytes", func(*world) func(http.ResponseWriter, *http.Request) bool { return keys(strings.Repeat(" ", 600<<10)) }},
		{"no key set", "the key set is not one", func(*world) func(http.ResponseWriter, *http.Request) bool { return keys(`{}`) }},
		{"too many keys", "at most 100", func(*world) func(http.ResponseWriter, *http.Request) bool {
			return keys(`{"keys":[` + strings.Repeat("{},", 200) + `{}]}`)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.cfg.Roots.AppendCertsFromPEM(inner.PEM())
			w.Serve = tt.serve(w)
			err := w.verify(w.assertion())
			if !problem.Is(err, problem.Unavailable) || !strings.Contains(err.Error(), tt.why) {
				t.Errorf("%v, want %q", err, tt.why)
			}
			if n := inner.Asked.Load(); n != 0 {
				t.Errorf("somebody else was asked %d times", n)
			}
		})
	}
}

// TestReachIsKept: addresses that are too near are not connected to, whatever
// name they go by.
func TestReachIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.assertion()
	for name, cfg := range map[string]issuer.Config{
		"the default":   {},
		"private":       {Reach: issuer.Private},
		"public":        {Reach: issuer.Public},
		"another host":  {Reach: issuer.Loopback, Hosts: []string{"issuer.example", "*.corp.example"}},
		"an unknown CA": {Reach: issuer.Loopback, Roots: x509.NewCertPool()},
	} {
		if cfg.Roots == nil {
			cfg.Roots = w.cfg.Roots
		}
		cfg.Now = w.clock
		k := issuer.New(cfg)
		for _, url := range []string{w.URL, strings.Replace(w.URL, "127.0.0.1", "localhost", 1)} {
			if _, err := k.Of(t.Context(), url, a); !problem.Is(err, problem.Unavailable) {
				t.Errorf("%s: %s: %v, want unavailable", name, url, err)
			}
		}
	}
	w.asked("from too far", 0)
}

// TestSlowIssuer: nobody waits for it longer than it may take.
func TestSlowIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := make(chan struct{})
	w.Serve = func(_ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done() // when we go away
		close(ended)
		return true
	}
	if err := w.verify(w.assertion()); !problem.Is(err, problem.Unavailable) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v, want unavailable", err)
	}
	<-ended
	if err := w.verify(w.assertion()); !problem.Is(err, problem.Unavailable) {
		t.Errorf("right after: %v, want unavailable", err)
	}
	w.asked("by two", 1)
}
