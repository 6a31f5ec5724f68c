package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// maxDepth bounds how deep a token's claims are nested.
const maxDepth = 16

// Claims are what a token says (RFC 7519 section 4.1). A claim that is not
// there is empty or the zero time.
type Claims struct {
	Issuer   string
	Subject  string
	Audience []string
	Expires  time.Time
	// NotBefore and IssuedAt are optional in a token.
	NotBefore, IssuedAt time.Time
	// All is every claim by its exact name: string, bool, int64, float64, nil,
	// []any, map[string]any.
	All map[string]any
}

// Signature is what is known of a token's signature.
type Signature struct {
	// Verified is whether the issuer signed the token, and it is good now; Why
	// says why not, or why that is not known.
	Verified bool
	Why      string
}

// ParseClaims reads a token's payload. It refuses what two readers could read in
// two ways, above all the same member twice; names compare exactly, so that
// "Sub" is not "sub". Errors are [problem.Invalid].
func ParseClaims(payload []byte) (Claims, error) {
	var c Claims
	if !utf8.Valid(payload) {
		return c, malformed("are not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	v, err := readValue(dec, 0)
	if err != nil {
		return c, malformed(err.Error())
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return c, malformed("have something after their end")
	}
	all, ok := v.(map[string]any)
	if !ok {
		return c, malformed("are not a JSON object")
	}
	c.All = all
	return c, c.registered()
}

func malformed(why string) error {
	return problem.Errorf(problem.Invalid, "the token's claims %s", why)
}

// registered takes out the claims that every token may have.
func (c *Claims) registered() error {
	for name, to := range map[string]*string{"iss": &c.Issuer, "sub": &c.Subject} {
		v, there := c.All[name]
		s, ok := v.(string)
		if there && !ok {
			return malformed(fmt.Sprintf("have a %s that is not a string", name))
		}
		*to = s
	}
	for name, to := range map[string]*time.Time{"exp": &c.Expires, "nbf": &c.NotBefore, "iat": &c.IssuedAt} {
		v, there := c.All[name]
		if !there {
			continue
		}
		at, ok := numericDate(v)
		if !ok {
			return malformed(fmt.Sprintf("have a %s that is not a time, which is a number of seconds since 1970", name))
		}
		*to = at
	}
	return c.audience()
}

// audience is one string or a list of them.
func (c *Claims) audience() error {
	switch aud := c.All["aud"].(type) {
	case nil:
	case string:
		c.Audience = []string{aud}
	case []any:
		for _, a := range aud {
			s, ok := a.(string)
			if !ok {
				return malformed("have an aud that is neither a string nor a list of strings")
			}
			c.Audience = append(c.Audience, s)
		}
	default:
		return malformed("have an aud that is neither a string nor a list of strings")
	}
	return nil
}

// numericDate reads RFC 7519's NumericDate, with or without a fraction.
func numericDate(v any) (time.Time, bool) {
	var sec float64
	switch n := v.(type) {
	case int64:
		sec = float64(n)
	case float64:
		sec = n
	default:
		return time.Time{}, false
	}
	if math.IsNaN(sec) || sec < 0 || sec > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(sec), 0).UTC(), true
}

// readValue reads one JSON value.
func readValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("are nested more than %d deep", maxDepth)
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, errors.New("are not JSON")
	}
	switch tok := tok.(type) {
	case json.Delim:
		if tok == '{' {
			return readObject(dec, depth)
		}
		out := []any{}
		for dec.More() {
			v, err := readValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, end(dec)
	case json.Number:
		return number(tok)
	case string:
		return tok, plain(tok)
	}
	return tok, nil // bool and nil
}

func readObject(dec *json.Decoder, depth int) (any, error) {
	out := map[string]any{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, errors.New("are not JSON")
		}
		name, _ := tok.(string) // between { and } it is a member's name
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("have %q twice", problem.Clip(name))
		}
		if err := plain(name); err != nil {
			return nil, err
		}
		if out[name], err = readValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	return out, end(dec)
}

func end(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return errors.New("are not JSON")
	}
	return nil
}

// plain refuses what no database column and no log can hold as it is, and what
// encoding/json puts for half of a surrogate pair.
func plain(s string) error {
	if strings.ContainsAny(s, "\x00\ufffd") {
		return errors.New("have a text with a NUL, or with characters that are none")
	}
	return nil
}

// number keeps whole numbers whole: as a float64, two repository ids could be
// one.
func number(n json.Number) (any, error) {
	if i, err := n.Int64(); err == nil {
		return i, nil
	}
	f, err := n.Float64()
	if err != nil {
		return nil, errors.New("have a number that is out of range")
	}
	return f, nil
}
