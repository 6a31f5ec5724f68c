package dev

import (
	"maps"
	"path/filepath"
)

// Start is what the agent gave one start of a workload.
type Start struct {
	Endpoint, Header, IMDS string
}

// common are the variables that every program under "innate run" gets: trust
// in the local CA for Go, Node, Python and curl, and the proxy that knows the
// installation's names.
func (in Instance) common(dir string) map[string]string {
	bundle := filepath.Join(dir, bundleFile)
	// Only addresses: NO_PROXY matches suffixes, and "localhost" would catch
	// every name under innate.localhost.
	noProxy := "127.0.0.1,::1,169.254.169.254"
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
func (in Instance) Env(dir string, s Start) map[string]string {
	env := in.common(dir)
	env["IDENTITY_ENDPOINT"], env["IDENTITY_HEADER"] = s.Endpoint, s.Header
	maps.Copy(env, map[string]string{
		"ARM_METADATA_HOSTNAME": hostOf(in.Endpoints.Management), "ARM_SUBSCRIPTION_ID": in.SubscriptionID,
		"ARM_TENANT_ID": in.TenantID, "ARM_USE_MSI": "true",
	})
	if s.IMDS != "" {
		env["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = s.IMDS
		env["ARM_MSI_ENDPOINT"] = s.IMDS + "/metadata/identity/oauth2/token"
	}
	return env
}

// Foreign are variables of the user's own shell that would lead a program away
// from its managed identity: other credentials, other endpoints.
var Foreign = []string{
	"MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT", "IDENTITY_SERVER_THUMBPRINT", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
	"AZURE_POD_IDENTITY_AUTHORITY_HOST", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PASSWORD",
	"AZURE_USERNAME", "AZURE_PASSWORD", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_REGIONAL_AUTHORITY_NAME", "AZURE_TENANT_ID",
	"ARM_CLIENT_SECRET", "ARM_CLIENT_CERTIFICATE_PATH", "ARM_OIDC_TOKEN", "ARM_OIDC_TOKEN_FILE_PATH", "ARM_USE_OIDC", "ARM_USE_CLI",
	"ARM_MSI_ENDPOINT", "SSL_CERT_DIR", "ALL_PROXY", "all_proxy",
}
