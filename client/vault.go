package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// apiVersion is the Key Vault data plane's.
const apiVersion = "2025-07-01"

// Vault is a vault of secrets.
type Vault struct {
	// URL is the vault's, "https://demo.vault.example.com".
	URL string
	// Identity gets the tokens; the workload's default one if nil.
	Identity *Identity
	// Audience is what tokens for the vault are for; "https://vault.azure.net" if empty.
	Audience string
	// HTTP calls the vault; http.DefaultClient if nil. Redirects are not followed,
	// unless its CheckRedirect says so.
	HTTP *http.Client
}

// Secret is a version of a secret.
type Secret struct {
	// ID is its URL, with the version at the end (lists: without).
	ID string `json:"id"`
	// Value is the secret. Lists have none.
	Value       string            `json:"value,omitempty"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Attributes  Attributes        `json:"attributes"`
}

// Attributes are what a vault says about a secret; times in unix seconds.
type Attributes struct {
	Enabled   *bool `json:"enabled,omitempty"`
	NotBefore int64 `json:"nbf,omitempty"`
	Expires   int64 `json:"exp,omitempty"`
	Created   int64 `json:"created,omitempty"`
	Updated   int64 `json:"updated,omitempty"`
}

// Name returns the secret's name.
func (s Secret) Name() string {
	u, err := url.Parse(s.ID)
	if err != nil {
		return ""
	}
	segs := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(segs) < 2 {
		return ""
	}
	return segs[1]
}

// Get returns the latest version of a secret. A refusal is an [*Error].
func (v *Vault) Get(ctx context.Context, name string) (Secret, error) {
	var s Secret
	return s, v.call(ctx, http.MethodGet, v.path("/secrets/"+url.PathEscape(name)), nil, &s)
}

// GetVersion returns one version of a secret, by the last part of its ID. A
// refusal is an [*Error].
func (v *Vault) GetVersion(ctx context.Context, name, version string) (Secret, error) {
	var s Secret
	return s, v.call(ctx, http.MethodGet, v.path("/secrets/"+url.PathEscape(name)+"/"+url.PathEscape(version)), nil, &s)
}

// Set makes a new version of a secret. The value is text, in UTF-8: JSON has
// no other strings, and its encoder would change what is none without a word.
func (v *Vault) Set(ctx context.Context, name, value string) (Secret, error) {
	var s Secret
	if !utf8.ValidString(value) {
		return s, errors.New("the value is not UTF-8 text: encode binary values, for example with base64")
	}
	return s, v.call(ctx, http.MethodPut, v.path("/secrets/"+url.PathEscape(name)), map[string]string{"value": value}, &s)
}

// List calls each with every secret, without values, until it returns an error.
func (v *Vault) List(ctx context.Context, each func(Secret) error) error {
	next, read := v.path("/secrets"), map[string]bool{}
	for next != "" {
		if read[next] {
			return fmt.Errorf("the vault's next page is %s again, which was read", next)
		}
		read[next] = true
		var page struct {
			Value    []Secret `json:"value"`
			NextLink string   `json:"nextLink"`
		}
		if err := v.call(ctx, http.MethodGet, next, nil, &page); err != nil {
			return err
		}
		for _, s := range page.Value {
			if err := each(s); err != nil {
				return err
			}
		}
		// The token goes only where the caller said the vault is.
		if page.NextLink != "" && !strings.HasPrefix(page.NextLink, strings.TrimSuffix(v.URL, "/")+"/") {
			return fmt.Errorf("the vault's next page is at another host: %s", page.NextLink)
		}
		next = page.NextLink
	}
	return nil
}

func (v *Vault) path(p string) string {
	return strings.TrimSuffix(v.URL, "/") + p + "?api-version=" + apiVersion
}

var defaultIdentity Identity

func (v *Vault) call(ctx context.Context, method, to string, in, out any) error {
	id, aud, hc := v.Identity, v.Audience, v.HTTP
	if id == nil {
		id = &defaultIdentity
	}
	if aud == "" {
		aud = "https://vault.azure.net"
	}
	if hc == nil {
		hc = http.DefaultClient
	}
	tok, err := id.Token(ctx, aud)
	if err != nil {
		return err
	}
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, to, body)
	if err != nil {
		return fmt.Errorf("calling the vault: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+tok.Value)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// A redirect would take the token with it, in the clear too and to another
	// port; and a secret that is being set to anywhere.
	stays := *hc
	if stays.CheckRedirect == nil {
		stays.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	resp, err := stays.Do(req)
	if err != nil {
		return fmt.Errorf("calling the vault: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("reading the vault's answer: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		return vaultError(resp.StatusCode, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("reading the vault's answer: %w", err)
	}
	return nil
}

func vaultError(status int, body []byte) error {
	var e struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil || e.Error.Message == "" {
		return &Error{Status: status, Message: "the vault refused"}
	}
	code := e.Error.Code
	if e.Error.Inner.Code != "" {
		code += "/" + e.Error.Inner.Code
	}
	return &Error{Status: status, Code: code, Message: strings.ReplaceAll(e.Error.Message, "\r\n", "\n")}
}
