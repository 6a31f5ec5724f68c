package keyring_test

import (
	"context"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/keyring"
)

// TestFirstKeyIsMadeOnce: many callers, on two replicas, ask for the first time
// at the same time.
func TestFirstKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rings := []*keyring.Ring{w.ring(), w.ring()}
	got := make([]string, 16)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for i := range got {
		wg.Go(func() {
			<-begin
			s, err := rings[i%2].Signer(t.Context(), tenantA)
			if err != nil {
				t.Error(err)
			}
			got[i] = s.KeyID
		})
	}
	close(begin)
	wg.Wait()
	recs := records(t, w, tenantA, keyring.KindSigning)
	if len(recs) != 1 {
		t.Fatalf("%d keys were made, want 1", len(recs))
	}
	for i, id := range got {
		if id != recs[0].ID {
			t.Errorf("caller %d signs with %s, want %s", i, id, recs[0].ID)
		}
	}
	if recs := records(t, w, tenantB, keyring.KindSigning); len(recs) != 0 {
		t.Errorf("the other tenant has %d keys", len(recs))
	}
}

// held is the real store with its reads of keys held up until released.
type held struct {
	keyring.Store
	release chan struct{}
}

func (h held) Keys(ctx context.Context, tenant, kind string) ([]keyring.Record, error) {
	<-h.release
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return h.Store.Keys(ctx, tenant, kind)
}

// TestCallerWhoLeavesTakesNobodyWithHim: callers share one flight, which began
// with the request of the first of them.
func TestCallerWhoLeavesTakesNobodyWithHim(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *keyring.Ring) error{
		"tend": func(ctx context.Context, r *keyring.Ring) error { return r.Tend(ctx, tenantA) },
		"authority": func(ctx context.Context, r *keyring.Ring) error {
			_, err := r.Authority(ctx, tenantA, keyring.KindFleetCA, "")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				r := w.ring()
				h := held{Store: w.db, release: make(chan struct{})}
				r.Store = h
				first, leave := context.WithCancel(t.Context())
				errs := make(chan error, 2)
				go func() { errs <- ask(first, r) }()
				synctest.Wait() // the first is inside
				go func() { errs <- ask(t.Context(), r) }()
				synctest.Wait() // the second has joined it
				leave()
				close(h.release)
				for range 2 {
					if err := <-errs; err != nil && !errors.Is(err, first.Err()) {
						t.Error(err)
					} else if err != nil {
						t.Errorf("a caller fails because another one left: %v", err)
					}
				}
			})
		})
	}
}

// TestRotation walks through the life of a key, and looks from two replicas.
func TestRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rings := []*keyring.Ring{w.ring(), w.ring()}
	first := signer(t, rings[0], tenantA)
	var second string
	at := func(d time.Duration) { w.set(start.Add(d)) }
	tend := func() {
		t.Helper()
		for range 3 {
			for _, r := range rings {
				if err := r.Tend(t.Context(), tenantA); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	look := func(when string, signs string, want ...string) {
		t.Helper()
		for i, r := range rings {
			if got := signer(t, r, tenantA); got != signs {
				t.Errorf("%s, replica %d signs with %s, want %s", when, i, got, signs)
			}
			if diff := cmp.Diff(want, published(t, r, tenantA)); diff != "" {
				t.Errorf("%s, replica %d publishes (-want +got):\n%s", when, i, diff)
			}
			for _, id := range []string{first, second} {
				_, ok, err := r.PublicKey(t.Context(), tenantA, id)
				if err != nil || ok != slices.Contains(want, id) {
					t.Errorf("%s, replica %d verifies with %s: %v, %v", when, i, id, ok, err)
				}
			}
		}
	}
	tend()
	look("at first", first, first)
	at(lives.Rotate - lives.Publish)
	tend()
	look("when the next key is almost due", first, first)
	due := lives.Rotate - lives.Publish + time.Second
	at(due)
	tend()
	recs := records(t, w, tenantA, keyring.KindSigning)
	if len(recs) != 2 {
		t.Fatalf("when the next key is due there are %d keys, want 2", len(recs))
	}
	second = recs[1].ID
	look("when the next key is due", first, first, second)
	at(due + lives.Publish - time.Second)
	tend()
	look("in the first key's last second", first, first, second)
	at(due + lives.Publish)
	tend()
	look("when the next key's time has come", second, first, second)
	at(due + lives.Publish + lives.Keep - time.Second)
	tend()
	look("in the last second of the last token", second, first, second)
	at(due + lives.Publish + lives.Keep)
	tend()
	look("when the first key has retired", second, second)
	if n := len(records(t, w, tenantA, keyring.KindSigning)); n != 2 {
		t.Errorf("after all there are %d keys, want 2", n)
	}
}

func TestRotateByHand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, other := w.ring(), w.ring()
	first := signer(t, other, tenantA)
	for range 2 {
		if err := r.Rotate(t.Context(), tenantA); err != nil {
			t.Fatal(err)
		}
	}
	recs := records(t, w, tenantA, keyring.KindSigning)
	if len(recs) != 3 || !recs[2].Retire.IsZero() {
		t.Fatalf("after two rotations: %+v", recs)
	}
	if got := signer(t, r, tenantA); got != first {
		t.Errorf("at once it signs with %s; readers do not know that key yet", got)
	}
	// A token's reader asks for a kid that its replica has not read yet.
	if _, ok, err := other.PublicKey(t.Context(), tenantA, recs[2].ID); err != nil || !ok {
		t.Errorf("another replica on the new key: %v, %v", ok, err)
	}
	w.set(start.Add(lives.Publish))
	if got := signer(t, r, tenantA); got != recs[2].ID {
		t.Errorf("after its publication the newest key does not sign, but %s", got)
	}
	// The middle key never signed; it goes with the others all the same.
	w.set(start.Add(lives.Publish + lives.Keep))
	if diff := cmp.Diff([]string{recs[2].ID}, published(t, r, tenantA)); diff != "" {
		t.Errorf("in the end it publishes (-want +got):\n%s", diff)
	}
}

// TestLongSleep: nobody tended for years. The old key goes on until readers know
// the next one.
func TestLongSleep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := signer(t, w.ring(), tenantA)
	w.set(start.Add(5 * 365 * 24 * time.Hour))
	r := w.ring()
	if err := r.Tend(t.Context(), tenantA); err != nil {
		t.Fatal(err)
	}
	if got := signer(t, r, tenantA); got != first {
		t.Errorf("after years it signs with %s, published a moment ago", got)
	}
	if n := len(published(t, r, tenantA)); n != 2 {
		t.Errorf("after years it publishes %d keys, want 2", n)
	}
}

// TestClockBehindTheFirstKey: another replica, whose clock is ahead, made the
// key; or this clock was set back.
func TestClockBehindTheFirstKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := signer(t, w.ring(), tenantA)
	w.set(start.Add(-3 * time.Second))
	s, err := w.ring().Signer(t.Context(), tenantA)
	if err != nil || s.KeyID != id {
		t.Errorf("three seconds before the only key's time: %q, %v; want %s", s.KeyID, err, id)
	}
}

func TestKeySetIsWhatReadersExpect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	if none := published(t, r, tenantA); len(none) != 0 {
		t.Errorf("before the first token: %v", none)
	}
	kid := signer(t, r, tenantA)
	set, err := r.JWKS(t.Context(), tenantA)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(records(t, w, tenantA, keyring.KindSigning)[0].Public)
	if err != nil {
		t.Fatal(err)
	}
	thumb := sha1.Sum(cert.Raw)
	key := cert.PublicKey.(*rsa.PublicKey)
	url := base64.RawURLEncoding.EncodeToString
	want := fmt.Sprintf(`{"keys":[{"use":"sig","kty":"RSA","kid":%q,"alg":"RS256","n":%q,"e":%q,"x5c":[%q],"x5t":%q}]}`,
		kid, url(key.N.Bytes()), url(big.NewInt(int64(key.E)).Bytes()), base64.StdEncoding.EncodeToString(cert.Raw), url(thumb[:]))
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("key set (-want +got):\n%s", diff)
	}
	if kid != url(thumb[:]) || key.N.BitLen() != 2048 || key.E != 65537 {
		t.Errorf("kid %s, %d bits, e %d; want the thumbprint, 2048 bits, 65537", kid, key.N.BitLen(), key.E)
	}
	if !cert.NotBefore.Before(start) || cert.NotAfter.Before(start.Add(lives.Rotate+lives.Keep)) || cert.IsCA {
		t.Errorf("certificate from %s to %s, CA %v", cert.NotBefore, cert.NotAfter, cert.IsCA)
	}
}

func TestUnknownKeysAndTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	kid := signer(t, r, tenantA)
	for _, tt := range []struct{ tenant, kid string }{
		{tenantA, "nope"}, {tenantA, ""}, {tenantB, kid}, {"cccccccc-0000-0000-0000-00000000000c", kid}, {"", kid}, {tenantA, strings.ToLower(kid)},
	} {
		if _, ok, err := r.PublicKey(t.Context(), tt.tenant, tt.kid); ok || err != nil {
			t.Errorf("PublicKey(%q, %q) = %v, %v; want no", tt.tenant, tt.kid, ok, err)
		}
	}
	for i := range 50 {
		if _, err := r.JWKS(t.Context(), fmt.Sprint("tenant ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if sets, _ := r.Held(); sets != 1 {
		t.Errorf("key sets of %d tenants are in memory, want 1", sets)
	}
	if _, err := r.Signer(t.Context(), "cccccccc-0000-0000-0000-00000000000c"); err == nil {
		t.Error("a tenant that does not exist signs")
	}
}

// TestRotationUnderLoad: whoever signs gets a key that whoever checks finds.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rings := []*keyring.Ring{w.ring(), w.ring()}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				s, err := rings[i%2].Signer(t.Context(), tenantA)
				if err != nil {
					t.Error(err)
					return
				}
				if _, ok, err := rings[(i+1)%2].PublicKey(t.Context(), tenantA, s.KeyID); !ok || err != nil {
					t.Errorf("replica %d signs with a key that the other does not know: %v", i%2, err)
				}
				if _, err := rings[i%2].JWKS(t.Context(), tenantA); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 4 {
		if err := rings[i%2].Rotate(t.Context(), tenantA); err != nil {
			t.Error(err)
		}
		w.set(start.Add(time.Duration(i+1) * lives.Publish))
	}
	wg.Wait()
}

// TestMakingAKeyIsOnRecord: once each, by name, and without the key.
func TestMakingAKeyIsOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.ring()
	kid := signer(t, r, tenantA)
	batches, err := w.db.Batches(t.Context(), tenantA, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var made []audit.Event
	for _, b := range batches {
		evs, err := b.Events()
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, evs...)
	}
	last := made[len(made)-1]
	want := audit.Event{
		Tenant: tenantA, At: start, Action: "Innate.Keys/create/action", Target: "/", Outcome: audit.Allowed,
		Principal: "system:keyring", Reason: "signs from 2026-09-21T14:13:20Z as " + kid,
	}
	if diff := cmp.Diff(want, last); diff != "" || len(made) != 2 {
		t.Errorf("%d events, the last (-want +got):\n%s", len(made), diff)
	}
}
