package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// grant is a secret that the command gets: in a variable or a file.
type grant struct {
	env  string // or
	path string // absolute
	place
}

// name is where the command finds it, for messages.
func (g grant) name() string {
	if g.env != "" {
		return g.env
	}
	return g.path
}

// place is where a secret is.
type place struct {
	vault string // its name, or its https:// URL
	name  string
	// version is empty for the latest.
	version string
}

func (p place) String() string {
	s := p.vault + "/" + p.name
	if strings.HasPrefix(p.vault, "https://") {
		s = p.vault + "/secrets/" + p.name
	}
	if p.version != "" {
		s += "/" + p.version
	}
	return s
}

var (
	envName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	vaultName  = regexp.MustCompile(`^[A-Za-z0-9-]+$`)
	vaultHost  = regexp.MustCompile(`^[A-Za-z0-9.-]+(:[0-9]+)?$`)
	secretName = regexp.MustCompile(`^[A-Za-z0-9-]{1,127}$`)
)

// parseGrants reads the values of --secret and --file.
func parseGrants(secrets, files []string) ([]grant, error) {
	var out []grant
	seen := map[string]bool{}
	for _, s := range secrets {
		env, at, ok := strings.Cut(s, "=")
		if !ok || !envName.MatchString(env) {
			return nil, fmt.Errorf("--secret %q is not ENV=VAULT/NAME, with a name that a variable can have", s)
		}
		p, err := parsePlace(at)
		if err != nil {
			return nil, fmt.Errorf("--secret %s: %w", env, err)
		}
		if seen[env] {
			return nil, fmt.Errorf("--secret %s is given twice", env)
		}
		seen[env] = true
		out = append(out, grant{env: env, place: p})
	}
	for _, s := range files {
		i := strings.LastIndex(s, "=") // a path may have one, a place has none
		if i <= 0 {
			return nil, fmt.Errorf("--file %q is not PATH=VAULT/NAME", s)
		}
		p, err := parsePlace(s[i+1:])
		if err != nil {
			return nil, fmt.Errorf("--file %s: %w", s[:i], err)
		}
		if strings.HasSuffix(s[:i], "/") {
			return nil, fmt.Errorf("--file %s is a folder: name the file in it", s[:i])
		}
		path, err := filepath.Abs(s[:i])
		if err != nil {
			return nil, fmt.Errorf("--file %s: finding the current folder: %w; give a path that begins with /", s[:i], err)
		}
		if seen[path] {
			return nil, fmt.Errorf("--file %s is given twice", s[:i])
		}
		seen[path] = true
		out = append(out, grant{path: path, place: p})
	}
	return out, nil
}

// parsePlace reads VAULT/NAME[/VERSION] or https://HOST/secrets/NAME[/VERSION].
func parsePlace(s string) (place, error) {
	bad := fmt.Errorf("%q is not VAULT/NAME, VAULT/NAME/VERSION or https://VAULT.vault.D/secrets/NAME", s)
	var p place
	rest, isURL := strings.CutPrefix(s, "https://")
	parts := strings.Split(rest, "/")
	if isURL {
		if len(parts) < 3 || parts[1] != "secrets" || !vaultHost.MatchString(parts[0]) {
			return p, bad
		}
		p.vault, parts = "https://"+parts[0], parts[2:]
	} else {
		if !vaultName.MatchString(parts[0]) {
			return p, bad
		}
		p.vault, parts = parts[0], parts[1:]
	}
	if len(parts) == 0 || len(parts) > 2 {
		return p, bad
	}
	for _, part := range parts {
		if !secretName.MatchString(part) {
			return p, bad
		}
	}
	p.name = parts[0]
	if len(parts) == 2 {
		p.version = parts[1]
	}
	return p, nil
}
