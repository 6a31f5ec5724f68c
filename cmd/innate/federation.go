package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/innate-id/innate/internal/resource"
)

func federationCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "federation",
		Short: "Which tokens of other issuers stand for a user-assigned identity",
		Long: `Which tokens of other issuers stand for a user-assigned identity (federated identity credentials): a program that
runs elsewhere shows the token that it has there, and gets one of the identity's.

Whoever may add one can become the identity. Everything compares exactly: an issuer with another case, or with a slash
at its end, is another issuer.`,
		Example: "  innate federation add shared web --issuer https://oidc.cluster.example --subject system:serviceaccount:prod:web\n  innate federation test shared --file token\n  innate federation list shared",
	}
	c.AddCommand(federationList(f), federationShow(f), federationAdd(f), federationRemove(f), federationTest(f))
	return group(c)
}

// federatedProperties are the properties of a federated identity credential.
type federatedProperties struct {
	Issuer     string               `json:"issuer"`
	Subject    string               `json:"subject,omitempty"`
	Expression *federatedExpression `json:"claimsMatchingExpression,omitempty"`
	Audiences  []string             `json:"audiences"`
}

type federatedExpression struct {
	Value           string `json:"value"`
	LanguageVersion int    `json:"languageVersion"`
	Language        string `json:"language,omitempty"`
}

// who is the subject or the expression, in words.
func (p federatedProperties) who() string {
	switch e := p.Expression; {
	case e == nil:
		return p.Subject
	case e.Language == "cel":
		return "cel: " + e.Value
	default:
		return e.Value
	}
}

type federatedNode = node[federatedProperties]

// exchangeAudience is what the field's tokens to be exchanged are for.
const exchangeAudience = "api://AzureADTokenExchange"

func federationList(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "list IDENTITY", Short: "List what an identity trusts", Args: oneArg("IDENTITY"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				all, err := list[federatedNode](c.Context(), a, id, "federatedIdentityCredentials")
				if err != nil {
					return err
				}
				if m.asJSON {
					return printJSON(c.OutOrStdout(), all)
				}
				var rows [][]string
				for _, n := range all {
					rows = append(rows, []string{n.Name, n.Properties.Issuer, n.Properties.who(), strings.Join(n.Properties.Audiences, ",")})
				}
				return table(c.OutOrStdout(), args[0]+" trusts no other issuer; innate federation add has it trust one.", []string{"NAME", "ISSUER", "SUBJECT OR EXPRESSION", "AUDIENCES"}, rows)
			})
		},
	}, true)
}

func federationShow(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "show IDENTITY NAME", Short: "Show one, as the management API has it", Args: exactly("IDENTITY", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				at, err := id.Child("federatedIdentityCredentials", args[1])
				if err != nil {
					return err
				}
				var got map[string]any
				if _, err := a.arm(c.Context(), http.MethodGet, armPath(at), nil, &got); err != nil {
					return err
				}
				return printJSON(c.OutOrStdout(), got)
			})
		},
	}, false)
}

func federationAdd(f *flags) *cobra.Command {
	m := managing{flags: f}
	var p federatedProperties
	var expression, cel string
	var replace bool
	c := m.bind(&cobra.Command{
		Use: "add IDENTITY NAME --issuer URL (--subject SUBJECT | --expression EXPRESSION | --cel EXPRESSION)", Short: "Have an identity trust tokens of another issuer",
		Long: `Have an identity trust tokens of another issuer. The issuer is not asked for anything now; when a token is shown it is
asked for its keys.

An expression compares claims:  claims['sub'] matches 'repo:org/*' and claims['repository_id'] eq '1234'
with * for any characters and ? for any one. One of CEL has the variables iss, sub, aud and claims.`,
		Args: exactly("IDENTITY", "NAME"), DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case p.Issuer == "":
				return usage(c, "say whose tokens: --issuer")
			case expression != "":
				p.Expression = &federatedExpression{Value: expression, LanguageVersion: 1}
			case cel != "":
				p.Expression = &federatedExpression{Value: cel, LanguageVersion: 1, Language: "cel"}
			case p.Subject == "":
				return usage(c, "say which tokens: --subject, --expression or --cel")
			}
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				at, err := id.Child("federatedIdentityCredentials", args[1])
				if err != nil {
					return err
				}
				return m.make(c, a, at, map[string]any{"properties": p}, replace)
			})
		},
	}, true)
	c.Flags().StringVar(&p.Issuer, "issuer", "", "the iss of the tokens, an https URL, exactly as they have it")
	c.Flags().StringVar(&p.Subject, "subject", "", "the sub of the tokens, exactly")
	c.Flags().StringVar(&expression, "expression", "", "comparisons of claims, joined by and")
	c.Flags().StringVar(&cel, "cel", "", "a CEL expression of iss, sub, aud and claims")
	c.Flags().StringArrayVar(&p.Audiences, "audience", []string{exchangeAudience}, "the aud of the tokens; may be repeated, one must be there")
	c.Flags().BoolVar(&replace, "replace", false, "write it anew if it is there already; tokens issued by what it said before count no more")
	c.MarkFlagsMutuallyExclusive("subject", "expression", "cel")
	return c
}

func federationRemove(f *flags) *cobra.Command {
	m := managing{flags: f}
	return m.bind(&cobra.Command{
		Use: "remove IDENTITY NAME", Short: "Have an identity trust it no more; tokens issued by it count no more", Args: exactly("IDENTITY", "NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				at, err := id.Child("federatedIdentityCredentials", args[1])
				if err != nil {
					return err
				}
				return a.remove(c.Context(), at)
			})
		},
	}, false)
}

// tried is what the management API answers of a token.
type tried struct {
	Matches    bool   `json:"matches"`
	Credential string `json:"credential"`
	Signature  struct {
		Verified bool   `json:"verified"`
		Why      string `json:"why"`
	} `json:"signature"`
	Nearest []struct {
		Credential string `json:"credential"`
		Matches    bool   `json:"matches"`
		Parts      []struct {
			Part    string `json:"part"`
			Matches bool   `json:"matches"`
			Why     string `json:"why"`
		} `json:"parts"`
	} `json:"nearest"`
	Others int `json:"others"`
}

func federationTest(f *flags) *cobra.Command {
	m := managing{flags: f}
	var file string
	var claims, verify bool
	c := m.bind(&cobra.Command{
		Use: "test IDENTITY", Short: "Would this token do, and if not, what came nearest?", Args: oneArg("IDENTITY"),
		Long: `Would this token do, and if not, what came nearest? The token comes from standard input or a file, never from the
command line, where every user of the machine could read it; it is not kept. It ends with exit code 1 if no
credential matches.`,
		Example: "  innate federation test shared --file \"$AZURE_FEDERATED_TOKEN_FILE\" --verify\n  echo '{\"iss\":\"https://oidc.cluster.example\",\"sub\":\"a\",\"aud\":\"api://AzureADTokenExchange\"}' | innate federation test shared --claims",
		RunE: func(c *cobra.Command, args []string) error {
			body, err := readTried(c, file, claims)
			if err != nil {
				return err
			}
			body["verify"] = verify
			return m.withIdentity(c, args[0], func(a *acting, id resource.ID) error {
				var raw json.RawMessage
				if _, err := a.arm(c.Context(), http.MethodPost, armPath(id, "evaluateFederatedToken"), body, &raw); err != nil {
					return err
				}
				var got tried
				if err := json.Unmarshal(raw, &got); err != nil {
					return fmt.Errorf("reading the answer: %w", err)
				}
				if m.asJSON {
					err = printJSON(c.OutOrStdout(), raw)
				} else {
					err = got.print(c.OutOrStdout(), args[0])
				}
				if err == nil && !got.Matches {
					return exitCode(1)
				}
				return err
			})
		},
	}, true)
	c.Flags().StringVar(&file, "file", "", "read the token from this file")
	c.Flags().BoolVar(&claims, "claims", false, "what is read is not a token but the claims that one would have, as JSON")
	c.Flags().BoolVar(&verify, "verify", false, "have the installation ask the issuer for its keys, to check the signature")
	return c
}

// readTried reads the token, or claims, into a request.
func readTried(c *cobra.Command, file string, claims bool) (map[string]any, error) {
	in := c.InOrStdin()
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the token: %w", err)
		}
		defer f.Close()
		in = f
	} else if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil, usage(c, "the token is read from standard input, or with --file from a file")
	}
	b, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("reading the token: %w", err)
	}
	text := strings.TrimSpace(string(b))
	switch {
	case text == "":
		return nil, errors.New("there is no token to read")
	case !claims:
		return map[string]any{"token": text}, nil
	case !json.Valid([]byte(text)):
		return nil, errors.New("the claims are not JSON")
	}
	return map[string]any{"claims": json.RawMessage(text)}, nil
}

// print says it for people.
func (t tried) print(w io.Writer, identity string) error {
	var b strings.Builder
	if t.Matches {
		fmt.Fprintf(&b, "The credential %s of %s matches.\n", t.Credential, identity)
	} else {
		fmt.Fprintf(&b, "No credential of %s matches.\n", identity)
	}
	if t.Signature.Verified {
		fmt.Fprintln(&b, "Signature: the issuer signed it")
	} else {
		fmt.Fprintln(&b, "Signature:", t.Signature.Why)
	}
	for _, n := range t.Nearest {
		if t.Matches && !n.Matches {
			break // what came near is of no interest then
		}
		fmt.Fprintf(&b, "\n%s\n", n.Credential)
		for _, p := range n.Parts {
			mark := "no "
			if p.Matches {
				mark = "yes"
			}
			fmt.Fprintf(&b, "  %s  %s: %s\n", mark, p.Part, shownWhy(p.Why))
		}
	}
	if !t.Matches && t.Others > 0 {
		fmt.Fprintf(&b, "\nand %d that are further off\n", t.Others)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// shownWhy keeps a token's text from steering a terminal.
func shownWhy(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '.'
		}
		return r
	}, s)
}
