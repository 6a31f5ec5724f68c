package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

// Who gets hold of the database, or the log, has no secret value, no private
// key and no token.
func TestDataAtRestHoldsNoSecrets(t *testing.T) {
	t.Parallel()
	in := start(t)
	const value = "correct horse battery staple Ω"
	if r := in.exec(t, value, "innate", "secret", "set", "demo/at-rest"); r.code != 0 {
		t.Fatal(r)
	}
	for range 2 { // a new version; and the old one stays
		if r := in.exec(t, value+" 2", "innate", "secret", "set", "demo/at-rest"); r.code != 0 {
			t.Fatal(r)
		}
	}
	token := in.token(t, "vm1", "https://vault.azure.net")
	proxy, err := url.Parse(in.Endpoints.Proxy)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := proxy.User.Password()
	needles := map[string][]byte{
		"a secret's value":           []byte(value),
		"the sample secret's value":  []byte(greeting),
		"a token":                    []byte(token),
		"a token's signature":        []byte(token[strings.LastIndex(token, ".")+1:]),
		"the secret of a start":      []byte(in.Resources["vm1"].Env["IDENTITY_HEADER"]),
		"the proxy's password":       []byte(password),
		"a PEM private key":          []byte("PRIVATE KEY-----"),
		"an RSA key in PKCS #8":      unhex(t, "020100300d06092a864886f70d0101010500"),
		"an EC key in PKCS #8":       unhex(t, "020100301306072a8648ce3d0201"),
		"an EC key in SEC 1 (P-256)": unhex(t, "30770201010420"),
		"an Ed25519 key in PKCS #8":  unhex(t, "020100300506032b6570"),
		"a private key in a JWK":     []byte(`"d":"`),
	}
	// First what lies there while it runs, then what it leaves.
	in.searchFiles(t, "running", needles)
	in.stop(t)
	in.searchFiles(t, "stopped", needles)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// searchFiles copies the database and the log and searches them.
func (in *instance) searchFiles(t *testing.T, when string, needles map[string][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(in.dir, "innate.*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
		for what, n := range needles {
			for form, bs := range forms(n) {
				if bytes.Contains(b, bs) {
					t.Errorf("%s, %s has %s (%s)", when, filepath.Base(f), what, form)
				}
			}
		}
	}
	// That the search looks in the right place: a name is no secret.
	if !bytes.Contains(all, []byte("at-rest")) {
		t.Errorf("%s, %q do not have even the secret's name", when, files)
	}
}

// forms are the ways in which bytes may be written down: as they are, in
// hexadecimal, in UTF-16, and in base64 at each of the three places where they
// may begin in a longer text.
func forms(b []byte) map[string][]byte {
	out := map[string][]byte{"as it is": b, "hex": []byte(hex.EncodeToString(b)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(b)))}
	var le, be []byte
	for _, u := range utf16.Encode([]rune(string(b))) {
		le, be = append(le, byte(u), byte(u>>8)), append(be, byte(u>>8), byte(u))
	}
	out["UTF-16LE"], out["UTF-16BE"] = le, be
	for shift := range 3 {
		// The first and last characters also depend on the neighbours.
		skip := []int{0, 2, 3}[shift]
		padded := append(make([]byte, shift), b...)
		whole := len(padded) / 3 * 4
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			text := enc.EncodeToString(padded)
			out[name+" at "+string(rune('0'+shift))] = []byte(text[skip:whole])
		}
	}
	return out
}

func TestFormsAreFoundWithinLongerTexts(t *testing.T) {
	needle := []byte("some secret value?>")
	for _, before := range []string{"", "x", "xy", "xyz"} {
		hay := []byte(before + string(needle) + "after")
		for name, text := range map[string]string{
			"base64": base64.StdEncoding.EncodeToString(hay), "base64url": base64.RawURLEncoding.EncodeToString(hay), "hex": hex.EncodeToString(hay),
		} {
			found := false
			for _, f := range forms(needle) {
				found = found || strings.Contains(text, string(f))
			}
			if !found {
				t.Errorf("%s of %q: not found", name, hay)
			}
		}
	}
}
