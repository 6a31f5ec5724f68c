package mask

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"
)

// Forms are the texts that a value is printed as: itself, its lines, and what
// base64, hexadecimal, URLs, JSON and shells make of it. Those that are shorter
// than [MinLen] are left out.
func Forms(value string) []string {
	out := []string{value, strings.TrimSpace(value)}
	for _, line := range strings.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == '\r' }) {
		out = append(out, strings.TrimSpace(line))
	}
	if Maskable(value) {
		for _, v := range slices.Compact([]string{value, strings.TrimSpace(value)}) {
			out = slices.Concat(out, base64Forms(v), hexForms(v), urlForms(v), jsonForms(v))
			// A shell that prints its commands ("sh -x") ends the quotes for one.
			out = append(out, strings.ReplaceAll(v, "'", `'\''`))
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(s string) bool { return len(s) < MinLen })
}

// base64Forms are what base64 has of a value, whatever is before and after it:
// where the value begins within a group of three bytes gives three texts. The
// characters at the ends that hold bits of a neighbour are left out; where the
// value is alone they are known, and in. Programs wrap at 76 or 64 columns.
func base64Forms(v string) (out []string) {
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
		out = append(out, enc.EncodeToString([]byte(v)))
		for before, skip := range []int{0, 2, 3} {
			text := enc.EncodeToString(append(make([]byte, before), v...))
			out = append(out, text[skip:(before+len(v))*8/6])
		}
		alone := enc.WithPadding(base64.NoPadding).EncodeToString([]byte(v))
		for _, columns := range []int{64, 76} {
			for line := range slices.Chunk([]byte(alone), columns) {
				out = append(out, string(line))
			}
			// A line end after the value changes the last character.
			for line := range slices.Chunk([]byte(alone[:len(v)*8/6]), columns) {
				out = append(out, string(line))
			}
		}
	}
	return out
}

func hexForms(v string) []string {
	h := hex.EncodeToString([]byte(v))
	return []string{h, strings.ToUpper(h)}
}

var percent = regexp.MustCompile(`%[0-9A-F]{2}`)

// urlForms are the ways to escape a value for a URL; libraries differ in what
// they leave as it is, and in the case of the digits.
func urlForms(v string) (out []string) {
	query := url.QueryEscape(v)
	strict := strings.ReplaceAll(query, "+", "%20")
	// JavaScript's encodeURIComponent.
	script := strings.NewReplacer("%21", "!", "%27", "'", "%28", "(", "%29", ")", "%2A", "*").Replace(strict)
	for _, s := range []string{query, strict, script, strings.ReplaceAll(strict, "%2F", "/"), url.PathEscape(v)} {
		out = append(out, s, percent.ReplaceAllStringFunc(s, strings.ToLower))
	}
	return out
}

// jsonForms are a value within a JSON string: as few escapes as may be, "<",
// ">" and "&" escaped too, all that is not ASCII escaped, "/" escaped.
func jsonForms(v string) []string {
	var out []string
	for _, html := range []bool{false, true} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if e.Encode(v) != nil {
			continue // a string always has a form
		}
		s := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSuffix(b.String(), "\n"), `"`), `"`)
		out = append(out, s, ascii(s, `\u%04x`), ascii(s, `\u%04X`), strings.ReplaceAll(s, "/", `\/`))
	}
	return out
}

// ascii writes what is not ASCII as UTF-16 units.
func ascii(s, format string) string {
	var b strings.Builder
	for _, r := range s {
		if r < 0x80 {
			b.WriteRune(r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, format, u)
		}
	}
	return b.String()
}
