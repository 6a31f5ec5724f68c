package token_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/token"
)

// TestMintedTokenIsWhatReadersExpect holds the bytes: names, order, and what
// only one of the versions has.
func TestMintedTokenIsWhatReadersExpect(t *testing.T) {
	t.Parallel()
	const mirid, asked = "/subscriptions/s/resourcegroups/g/providers/P/t/id", "/subscriptions/s/resourcegroups/g/providers/P/t/vm"
	v1 := token.Claims{
		Audience: "https://vault.azure.net/", Issuer: login + "/" + tenantA + "/", IssuedAt: 1790000000, NotBefore: 1789999700, Expires: 1790003600,
		AppID: "client", AppIDACR: "2", IDP: login + "/" + tenantA + "/", IDType: "app", Caller: "unix:uid:0", ObjectID: oid, Subject: oid, TenantID: tenantA,
		ID: "uti", Version: "1.0", IdentityResource: mirid, AskedBy: asked,
	}
	v2 := token.Claims{
		Audience: "api-client", Issuer: login + "/" + tenantA + "/v2.0", IssuedAt: 1790000000, NotBefore: 1789999700, Expires: 1790003600,
		AZP: "client", AZPACR: "2", IDType: "app", ObjectID: oid, Subject: oid, TenantID: tenantA, ID: "uti", Version: "2.0",
	}
	for _, tt := range []struct {
		claims          token.Claims
		header, payload string
	}{
		{v1, `{"alg":"RS256","kid":"key-a","typ":"JWT","x5t":"key-a"}`, `{"aud":"https://vault.azure.net/",` +
			`"iss":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/","iat":1790000000,"nbf":1789999700,"exp":1790003600,` +
			`"appid":"client","appidacr":"2","idp":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/","idtyp":"app",` +
			`"innate_caller":"unix:uid:0","oid":"11111111-0000-0000-0000-000000000001","sub":"11111111-0000-0000-0000-000000000001",` +
			`"tid":"aaaaaaaa-0000-0000-0000-00000000000a","uti":"uti","ver":"1.0","xms_mirid":"` + mirid + `","xms_az_rid":"` + asked + `"}`},
		{v2, `{"alg":"RS256","kid":"key-a","typ":"JWT"}`, `{"aud":"api-client",` +
			`"iss":"https://login.innate.test:8443/aaaaaaaa-0000-0000-0000-00000000000a/v2.0","iat":1790000000,"nbf":1789999700,"exp":1790003600,` +
			`"azp":"client","azpacr":"2","idtyp":"app","oid":"11111111-0000-0000-0000-000000000001","sub":"11111111-0000-0000-0000-000000000001",` +
			`"tid":"aaaaaaaa-0000-0000-0000-00000000000a","uti":"uti","ver":"2.0"}`},
	} {
		h, p, _ := parts(mint(t, tt.claims))
		if diff := cmp.Diff(tt.header, string(decode(t, h))); diff != "" {
			t.Errorf("version %s header (-want +got):\n%s", tt.claims.Version, diff)
		}
		if diff := cmp.Diff(tt.payload, string(decode(t, p))); diff != "" {
			t.Errorf("version %s claims (-want +got):\n%s", tt.claims.Version, diff)
		}
		if tt.claims.Client() != "client" {
			t.Errorf("version %s Client() = %q", tt.claims.Version, tt.claims.Client())
		}
	}
}

func TestVerifyReturnsWhatMintSigned(t *testing.T) {
	t.Parallel()
	want := good()
	for _, tenant := range []string{"", tenantA, strings.ToUpper(tenantA)} {
		e := expect()
		e.Tenant = tenant
		got, err := token.Verify(mint(t, want), e)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Verify(Mint(c)) for tenant %q (-want +got):\n%s", tenant, diff)
		}
	}
	e := expect()
	e.Tenant = tenantB
	if _, err := token.Verify(mint(t, want), e); !problem.Is(err, problem.Unauthenticated) {
		t.Errorf("a vault of tenant B on a token of tenant A: %v", err)
	}
}

// TestTokensThatAreTooLong: what nobody would look at is not minted either.
func TestTokensThatAreTooLong(t *testing.T) {
	t.Parallel()
	big := func(n int) (string, error) {
		c := good()
		c.Caller = strings.Repeat("c", n)
		return token.Mint(c, token.Signer{KeyID: "key-a", Key: keys().a})
	}
	base, err := big(0)
	if err != nil {
		t.Fatal(err)
	}
	fits := (token.MaxLen - len(base)) * 3 / 4 // three bytes make four letters
	for fits > 0 {
		if raw, err := big(fits); err == nil && len(raw) <= token.MaxLen {
			break
		}
		fits--
	}
	raw, err := big(fits)
	if err != nil || len(raw) < token.MaxLen-4 {
		t.Fatalf("the longest token has %d bytes, %v; want about %d", len(raw), err, token.MaxLen)
	}
	if _, err := token.Verify(raw, expect()); err != nil {
		t.Errorf("Verify of %d bytes: %v", len(raw), err)
	}
	if raw, err := big(fits + 4); err == nil {
		t.Errorf("Mint makes a token of %d bytes, over the %d that Verify looks at", len(raw), token.MaxLen)
	}
	for _, n := range []int{token.MaxLen + 1, 1 << 20} {
		_, err := token.Verify(strings.Repeat("a", n), expect())
		if !problem.Is(err, problem.Unauthenticated) || !strings.Contains(err.Error(), "over 16384 bytes") {
			t.Errorf("Verify of %d bytes: %v", n, err)
		}
	}
}

func TestTimesAreKept(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for _, tt := range []struct {
		name   string
		change func(*token.Claims)
		want   problem.Kind
	}{
		{"the last second", func(c *token.Claims) { c.Expires = at(time.Second) }, ""},
		{"at exp (RFC 7519 section 4.1.4: on or after)", func(c *token.Claims) { c.Expires = at(0) }, problem.TokenExpired},
		{"after exp, within no leeway", func(c *token.Claims) { c.Expires = at(-time.Second) }, problem.TokenExpired},
		{"exp before 1970", func(c *token.Claims) { c.Expires = -1 }, problem.TokenExpired},
		{"exp far away", func(c *token.Claims) { c.Expires = 1 << 62 }, ""},
		{"at nbf", func(c *token.Claims) { c.NotBefore = at(0) }, ""},
		{"nbf within the leeway", func(c *token.Claims) { c.NotBefore = at(30 * time.Second) }, ""},
		{"nbf after the leeway", func(c *token.Claims) { c.NotBefore = at(31 * time.Second) }, problem.Unauthenticated},
		{"nbf at the end of time", func(c *token.Claims) { c.NotBefore = 1<<63 - 1 }, problem.Unauthenticated},
		{"iat within the leeway", func(c *token.Claims) { c.IssuedAt = at(30 * time.Second) }, ""},
		// The time of issue is what a revocation is compared with.
		{"iat after the leeway", func(c *token.Claims) { c.IssuedAt = at(31 * time.Second) }, problem.Unauthenticated},
		{"no exp", func(c *token.Claims) { c.Expires = 0 }, problem.Unauthenticated},
		{"no iat", func(c *token.Claims) { c.IssuedAt = 0 }, problem.Unauthenticated},
		{"no oid", func(c *token.Claims) { c.ObjectID = "" }, problem.Unauthenticated},
		{"no tid", func(c *token.Claims) { c.TenantID = "" }, problem.Unauthenticated},
		{"no iss", func(c *token.Claims) { c.Issuer = "" }, problem.Unauthenticated},
		{"no aud", func(c *token.Claims) { c.Audience = "" }, problem.WrongAudience},
		{"expired and for another API", func(c *token.Claims) { c.Expires, c.Audience = at(-1), "x" }, problem.TokenExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := token.Verify(mintWith(t, tt.change), expect())
			if tt.want == "" && err != nil || tt.want != "" && !problem.Is(err, tt.want) {
				t.Errorf("Verify = %v, want kind %q", err, tt.want)
			}
		})
	}
}

func TestIssuerIsCompared(t *testing.T) {
	t.Parallel()
	ours := login + "/" + tenantA + "/"
	for _, iss := range []string{ours, ours + "v2.0"} {
		if _, err := token.Verify(mintWith(t, func(c *token.Claims) { c.Issuer = iss }), expect()); err != nil {
			t.Errorf("iss %s: %v", iss, err)
		}
	}
	for _, iss := range []string{
		strings.TrimSuffix(ours, "/"), ours + "/", ours + "v2.0/", ours + "v1.0", ours + "evil", " " + ours,
		strings.Replace(ours, ":8443", "", 1), strings.Replace(ours, ":8443", ":443", 1), strings.Replace(ours, ":8443", ":84430", 1),
		strings.Replace(ours, "https", "http", 1), strings.Replace(ours, "innate.test", "innate.test.evil.test", 1),
		strings.Replace(ours, "login.", "login.evil.", 1), strings.Replace(ours, "login", "LOGIN", 1), strings.Replace(ours, tenantA, tenantB, 1),
		"https://login.innate.test:8443@evil.test/" + tenantA + "/", "https://sts.windows.net/" + tenantA + "/", "https://evil.test/?" + ours,
		strings.ToUpper(ours),
	} {
		_, err := token.Verify(mintWith(t, func(c *token.Claims) { c.Issuer = iss }), expect())
		if !problem.Is(err, problem.Unauthenticated) {
			t.Errorf("iss %s: %v, want %s", iss, err, problem.Unauthenticated)
		}
	}
}

func TestClaimsThatAreNotOurs(t *testing.T) {
	t.Parallel()
	change := func(from, to string) string { return forge(t, keys().a, header, strings.Replace(payload, from, to, 1)) }
	aud := fmt.Sprintf("%q", vault)
	refuseAll(t, []attack{
		{"aud as a list", change(aud, "["+aud+"]")},
		{"aud as a list with another", change(aud, "["+aud+`,"https://evil.test"]`)},
		{"aud as an object", change(aud, "{}")},
		{"two audiences", change(`{"aud"`, `{"aud":"https://evil.test","aud"`)},
		{"two tenants", change(`{"aud"`, `{"tid":"`+tenantB+`","aud"`)},
		{"two expiries", change(`{"aud"`, `{"exp":1,"aud"`)},
		{"two oids, the same", change(`{"aud"`, `{"oid":"`+oid+`","aud"`)},
		{"names in another case", change(`"oid"`, `"OID"`)},
		{"exp as text", change(`"exp":1790003600`, `"exp":"1790003600"`)},
		{"exp as a fraction", change(`"exp":1790003600`, `"exp":1790003600.5`)},
		{"exp as an exponent", change(`"exp":1790003600`, `"exp":1e400`)},
		{"exp that does not fit", change(`"exp":1790003600`, `"exp":99999999999999999999`)},
		{"exp null", change(`"exp":1790003600`, `"exp":null`)},
		{"tid as a number", change(`"tid":"`+tenantA+`"`, `"tid":1`)},
		{"no object", forge(t, keys().a, header, `["aud"]`)},
		{"null", forge(t, keys().a, header, `null`)},
		{"empty", forge(t, keys().a, header, ``)},
		{"text after the claims", forge(t, keys().a, header, payload+payload)},
		{"cut short", forge(t, keys().a, header, payload[:len(payload)-1])},
		{"deep", forge(t, keys().a, header, strings.Repeat(`{"a":`, 3000)+"1"+strings.Repeat("}", 3000))},
	})
	for _, other := range []string{vault + "//", vault + ".evil.test", strings.ToUpper(vault), vault + ":443", "", " " + vault} {
		_, err := token.Verify(mintWith(t, func(c *token.Claims) { c.Audience = other }), expect())
		if !problem.Is(err, problem.WrongAudience) {
			t.Errorf("aud %q: %v, want %s", other, err, problem.WrongAudience)
		}
	}
}

func TestIDsAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		id := token.NewID()
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`).MatchString(id) || seen[id] {
			t.Fatalf("NewID() = %q, seen %v", id, seen[id])
		}
		seen[id] = true
	}
}

func FuzzVerify(f *testing.F) {
	raw := forge(f, keys().a, header, payload)
	h, p, s := parts(raw)
	for _, seed := range []string{raw, "", "..", h + "." + p + ".", h + ".." + s, "e30.e30.", raw + "." + s, "{}"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := token.Verify(s, expect())
		if err == nil && s != raw {
			t.Errorf("Verify(%q) = %+v; nobody signed it", s, c)
		}
		if err != nil && problem.Of(err).Kind == problem.Internal {
			t.Errorf("Verify(%q) = %v, which is no answer for a client", s, err)
		}
	})
}
