package vault

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/innate-id/innate/internal/problem"
)

// Bounds, as Key Vault has them.
const (
	// MaxName is the longest name, in bytes.
	MaxName = 127
	// MaxValue is the longest value, in bytes.
	MaxValue = 25 << 10
	// MaxTags is how many tags a version may have; MaxTagText is the longest
	// name or value of a tag, in characters.
	MaxTags    = 15
	MaxTagText = 256
	// MaxContentType is the longest content type, in characters.
	MaxContentType = 255
	// PageSize is the largest page of a list, and the usual one.
	PageSize = 25
)

// maxTime is the end of the year 9999: what comes after has no date in JSON.
const maxTime = 253402300799

// CheckName refuses what is no name of a secret.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName || strings.IndexFunc(name, func(r rune) bool { return !alphanumeric(r) && r != '-' }) >= 0 {
		return problem.Errorf(problem.Invalid, "The name %q is not a secret name: 1 to %d letters, digits and dashes (0-9, a-z, A-Z, -) were expected.", problem.Clip(name), MaxName)
	}
	return nil
}

// CheckVersion refuses what is no version: 32 hex digits.
func CheckVersion(version string) error {
	if len(version) != 32 || strings.Trim(version, "0123456789abcdefABCDEF") != "" {
		return problem.Errorf(problem.Invalid, "The version %q is not a secret version: 32 hexadecimal digits were expected.", problem.Clip(version))
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func checkValue(v Value) error {
	if len(v) > MaxValue {
		return problem.Errorf(problem.Invalid, "The value is %d bytes long; a secret has at most %d.", len(v), MaxValue)
	}
	if !utf8.ValidString(string(v)) {
		return problem.Errorf(problem.Invalid, "The value is not UTF-8 text; encode binary secrets, for example as base64.")
	}
	return nil
}

func checkContentType(s string) error {
	if utf8.RuneCountInString(s) > MaxContentType || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return problem.Errorf(problem.Invalid, "The contentType is over %d characters long or has a control character.", MaxContentType)
	}
	return nil
}

func checkTags(tags map[string]string) error {
	if len(tags) > MaxTags {
		return problem.Errorf(problem.Invalid, "There are %d tags; a secret has at most %d.", len(tags), MaxTags)
	}
	for k, v := range tags {
		if k == "" || utf8.RuneCountInString(k) > MaxTagText || utf8.RuneCountInString(v) > MaxTagText || !utf8.ValidString(k+v) {
			return problem.Errorf(problem.Invalid, "The tag %q is not 1 to %d characters with a value of at most %d.", problem.Clip(k), MaxTagText, MaxTagText)
		}
	}
	return nil
}

// checkTimes refuses a version that ends before it begins.
func checkTimes(notBefore, expires time.Time) error {
	if !notBefore.IsZero() && !expires.IsZero() && notBefore.After(expires) {
		return problem.Errorf(problem.Invalid, "The attribute nbf is after exp: the secret would never be valid.")
	}
	return nil
}

// unixTime reads an attribute; nil is the zero time.
func unixTime(name string, seconds *int64) (time.Time, error) {
	switch {
	case seconds == nil:
		return time.Time{}, nil
	case *seconds < 1 || *seconds > maxTime:
		return time.Time{}, problem.Errorf(problem.Invalid, "The attribute %s is %d; a time in unix seconds was expected, 1 to %d.", name, *seconds, int64(maxTime))
	}
	return time.Unix(*seconds, 0).UTC(), nil
}
