package access

import "strings"

// Match reports whether action matches pattern: anchored at both ends, without
// case, "*" for any run of characters (wire: ARM role definitions). Between two
// slashes "*" also stands for no segment at all: that is how Azure's own roles
// are written, "vaults/*/read" for vaults/read too, and Managed Identity
// Operator has nothing but "userAssignedIdentities/*/assign/action" for
// userAssignedIdentities/assign/action.
//
// A decision asks this for every pattern of every role that counts, so it makes
// no copies.
func Match(pattern, action string) bool {
	part, rest, star := strings.Cut(pattern, "*")
	if !star {
		return equalFold(pattern, action)
	}
	if len(action) < len(part) || !equalFold(action[:len(part)], part) {
		return false
	}
	a := action[advance(part, rest):]
	for {
		part, rest, star = strings.Cut(rest, "*")
		if !star {
			return len(a) >= len(part) && equalFold(a[len(a)-len(part):], part)
		}
		// The first place is the best one: it leaves the most for the rest.
		i := indexFold(a, part)
		if i < 0 {
			return false
		}
		a = a[i+advance(part, rest):]
	}
}

// advance is how much of the action part uses up, with rest after its star. In
// "/*/" the slash before the star may be the one after it, so it is left in
// place.
func advance(part, rest string) int {
	if strings.HasSuffix(part, "/") && strings.HasPrefix(rest, "/") {
		return len(part) - 1
	}
	return len(part)
}

func matchAny(patterns []string, action string) (string, bool) {
	for _, p := range patterns {
		if Match(p, action) {
			return p, true
		}
	}
	return "", false
}

func indexFold(s, part string) int {
	for i := 0; i+len(part) <= len(s); i++ {
		if equalFold(s[i:i+len(part)], part) {
			return i
		}
	}
	return -1
}

// equalFold compares without case, for ASCII letters. Unicode's rules would
// make more texts equal than there are actions: the Kelvin sign folds to k.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && lowerByte(a[i]) != lowerByte(b[i]) {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// lower is lower case as equalFold has it.
func lower(s string) string {
	for i := range len(s) {
		if lowerByte(s[i]) != s[i] {
			b := []byte(s)
			for ; i < len(b); i++ {
				b[i] = lowerByte(b[i])
			}
			return string(b)
		}
	}
	return s
}
