package web

import (
	"slices"
	"strconv"
	"strings"
)

// Names are the host names of an installation: all under one domain, on one
// TLS port.
type Names struct {
	// Domain is the parent of all names, "innate.localhost".
	Domain string
	// Port is the TLS port that clients see; 443 is left out of URLs.
	Port int
	// Public says that the installation answers for the public cloud's own
	// names too, to those who are led here by them ([Names.Asked]).
	Public bool

	// cloud marks the public cloud's names: what Asked returns for one of them.
	cloud bool
}

// publicHosts are the public cloud's names of our services; the first is the
// one in URLs. They are on port 443, whatever ours is.
var publicHosts = map[string][]string{
	"login":      {"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"},
	"management": {"management.azure.com"},
	"graph":      {"graph.microsoft.com"},
}

// PublicVaults is the parent of all vaults' names in the public cloud.
const PublicVaults = "vault.azure.net"

// PublicHosts returns the public cloud's names of a service ("login",
// "management", "graph").
func PublicHosts(label string) []string { return publicHosts[label] }

// PublicDomains are the domains that hold all names that [Names.Serves] may
// mean: an authority that vouches for these alone can vouch for all of them.
func PublicDomains() []string {
	out := []string{PublicVaults}
	for _, hosts := range publicHosts {
		out = append(out, hosts...)
	}
	slices.Sort(out)
	return out
}

// Serves reports whether host, in lower case and without port, is a name of the
// public cloud that this installation answers for.
func (n Names) Serves(host string) bool {
	if !n.Public {
		return false
	}
	if label, parent, ok := strings.Cut(host, "."); ok && label != "" && parent == PublicVaults {
		return true
	}
	for _, hosts := range publicHosts {
		if slices.Contains(hosts, host) {
			return true
		}
	}
	return false
}

// Asked returns the names for the answer to who asked host ([HostName]): a
// client that came by the public cloud's names goes on by them, every other
// one by ours.
func (n Names) Asked(host string) Names {
	n.cloud = n.Serves(host)
	return n
}

// URL returns "https://label.domain[:port]" without a trailing slash.
func (n Names) URL(label string) string {
	return "https://" + label + "." + n.Authority()
}

// of is the URL of a service that the public cloud has too.
func (n Names) of(label string) string {
	if n.cloud {
		return "https://" + publicHosts[label][0]
	}
	return n.URL(label)
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
func (n Names) Login() string { return n.of("login") }

// Issuer is what the issuers of version 1 tokens begin with; those of version 2
// begin with Login.
func (n Names) Issuer() string {
	if n.cloud {
		return "https://sts.windows.net"
	}
	return n.Login()
}

// Logins are the host names, with port, that the token service is asked by and
// that are one to clients that know them; the first is the one in URLs.
func (n Names) Logins() []string {
	if n.cloud {
		return publicHosts["login"]
	}
	return []string{strings.TrimPrefix(n.Login(), "https://")}
}

// Management is the management API.
func (n Names) Management() string { return n.of("management") }

// Graph is the directory's API.
func (n Names) Graph() string { return n.of("graph") }

// Portal is the page for people.
func (n Names) Portal() string { return n.URL("portal") }

// Fleet is the agents' API.
func (n Names) Fleet() string { return n.URL("fleet") }

// VaultSuffix is what a vault's host name has after the vault's name.
func (n Names) VaultSuffix() string {
	if n.cloud {
		return PublicVaults
	}
	return "vault." + n.Authority()
}

// StorageSuffix is what a storage account's host names have after ".blob".
func (n Names) StorageSuffix() string {
	if n.cloud {
		return "core.windows.net"
	}
	return n.Authority()
}

// Vaults is the parent of all vaults' URLs and the audience that their
// challenge names: clients accept it only if it is a parent of the vault's host.
func (n Names) Vaults() string { return "https://" + n.VaultSuffix() }

// Vault is the URL of one vault.
func (n Names) Vault(name string) string { return "https://" + name + "." + n.VaultSuffix() }
