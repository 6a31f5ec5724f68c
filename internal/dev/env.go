package dev

import (
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// Start is what the agent gave one start of a workload.
type Start struct {
	Endpoint, Header, IMDS string
	// Captured says that 169.254.169.254 answers the start's programs.
	Captured bool
}

// Identity are the variables by which SDKs find the start: none where they need
// none.
func (s Start) Identity() map[string]string {
	if s.Captured {
		return map[string]string{}
	}
	env := map[string]string{"IDENTITY_ENDPOINT": s.Endpoint, "IDENTITY_HEADER": s.Header}
	if s.IMDS != "" {
		env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = s.IMDS
	}
	return env
}

// common are the variables that every program under "innate run" gets: trust
// in the local CA for Go, Node, Python and curl, and the proxy that knows the
// installation's names.
func (in Instance) common(dir, userNoProxy string) map[string]string {
	bundle := filepath.Join(dir, bundleFile)
	noProxy := noProxy([]string{in.domain()}, userNoProxy)
	return map[string]string{
		"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle, "CURL_CA_BUNDLE": bundle, "NODE_EXTRA_CA_CERTS": in.CAFile,
		"HTTPS_PROXY": in.Endpoints.Proxy, "https_proxy": in.Endpoints.Proxy, "NO_PROXY": noProxy, "no_proxy": noProxy,
		"NODE_USE_ENV_PROXY":    "1", // newer Node: fetch too
		"AZURE_AUTHORITY_HOST":  in.Endpoints.Login,
		"AZURE_SUBSCRIPTION_ID": in.SubscriptionID,
		"INNATE_DATA":           dir,
	}
}

// Env are the variables that make a program run as the workload of a start.
// userNoProxy is the NO_PROXY that it would have had.
func (in Instance) Env(dir string, s Start, userNoProxy string) map[string]string {
	env := in.common(dir, userNoProxy)
	maps.Copy(env, s.Identity())
	maps.Copy(env, map[string]string{
		"ARM_METADATA_HOSTNAME": hostOf(in.Endpoints.Management), "ARM_SUBSCRIPTION_ID": in.SubscriptionID,
		"ARM_TENANT_ID": in.TenantID,
		// The user's own login is not the workload's.
		"ARM_USE_CLI": "false",
	})
	if s.Captured {
		env["ARM_USE_MSI"] = "true"
	} else if s.IMDS != "" {
		// Without an endpoint, ARM_USE_MSI would ask 169.254.169.254: in a cloud
		// that is the real machine's identity.
		env["ARM_USE_MSI"], env["ARM_MSI_ENDPOINT"] = "true", s.IMDS+"/metadata/identity/oauth2/token"
	}
	return env
}

// domain is the parent of the instance's names.
func (in Instance) domain() string {
	u, err := url.Parse(in.Endpoints.Management)
	if err != nil {
		return ""
	}
	return strings.TrimPrefix(u.Hostname(), "management.")
}

// UserNoProxy is this process's NO_PROXY.
func UserNoProxy() string {
	if v := os.Getenv("NO_PROXY"); v != "" {
		return v
	}
	return os.Getenv("no_proxy")
}

// noProxy is the NO_PROXY of a program: the user's own without what would keep
// the domains' names from the proxy that alone knows them. Clients match
// suffixes, so that "localhost" catches every name under innate.localhost.
func noProxy(domains []string, user string) string {
	out := []string{"127.0.0.1", "::1", "169.254.169.254"}
	for _, e := range strings.FieldsFunc(user, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		name := strings.ToLower(e)
		if host, port, err := net.SplitHostPort(name); err == nil && port != "" {
			name = host
		}
		name = strings.Trim(strings.TrimLeft(name, "*."), ".")
		ours := slices.ContainsFunc(domains, func(d string) bool { return strings.HasSuffix(d, name) || strings.HasSuffix(name, "."+d) })
		if !ours && !strings.ContainsAny(name, "*?") && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return strings.Join(out, ",")
}

// Foreign are variables of the user's own shell that would lead a program away
// from its managed identity: other credentials, other endpoints. AZURE_CLIENT_ID
// is not among them: it picks a user-assigned identity.
var Foreign = []string{
	"MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT", "IDENTITY_SERVER_THUMBPRINT", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
	"AZURE_POD_IDENTITY_AUTHORITY_HOST", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PASSWORD",
	"AZURE_USERNAME", "AZURE_PASSWORD", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_REGIONAL_AUTHORITY_NAME", "AZURE_TENANT_ID",
	"ARM_CLIENT_SECRET", "ARM_CLIENT_CERTIFICATE_PATH", "ARM_OIDC_TOKEN", "ARM_OIDC_TOKEN_FILE_PATH", "ARM_USE_OIDC", "ARM_USE_CLI",
	"INNATE_WORKLOAD", "AZURE_TOKEN_CREDENTIALS", "AZURE_ADDITIONALLY_ALLOWED_TENANTS",
	"ARM_CLIENT_ID", "ARM_CLIENT_CERTIFICATE", "ARM_CLIENT_CERTIFICATE_PASSWORD", "ARM_CLIENT_SECRET_FILE_PATH", "ARM_CLIENT_ID_FILE_PATH",
	"ARM_OIDC_REQUEST_TOKEN", "ARM_OIDC_REQUEST_URL", "ARM_USE_AKS_WORKLOAD_IDENTITY", "ARM_ENVIRONMENT", "ARM_USE_MSI",
	"ARM_MSI_ENDPOINT", "SSL_CERT_DIR", "ALL_PROXY", "all_proxy",
}
