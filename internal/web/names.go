package web

import "strconv"

// Names are the host names of an installation: all under one domain, on one
// TLS port.
type Names struct {
	// Domain is the parent of all names, "innate.localhost".
	Domain string
	// Port is the TLS port that clients see; 443 is left out of URLs.
	Port int
}

// URL returns "https://label.domain[:port]" without a trailing slash.
func (n Names) URL(label string) string {
	return "https://" + label + "." + n.Authority()
}

// Authority is "domain[:port]".
func (n Names) Authority() string {
	if n.Port == 443 {
		return n.Domain
	}
	return n.Domain + ":" + strconv.Itoa(n.Port)
}

// Login is the token service. Its host name must not contain "token": some
// clients derive other URLs by replacing that word.
func (n Names) Login() string { return n.URL("login") }

// Management is the management API.
func (n Names) Management() string { return n.URL("management") }

// Portal is the page for people.
func (n Names) Portal() string { return n.URL("portal") }

// Fleet is the agents' API.
func (n Names) Fleet() string { return n.URL("fleet") }

// Vaults is the parent of all vaults' URLs and the audience that their
// challenge names: clients accept it only if it is a parent of the vault's host.
func (n Names) Vaults() string { return n.URL("vault") }

// Vault is the URL of one vault.
func (n Names) Vault(name string) string { return n.URL(name + ".vault") }
