package dev

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
)

// cloudDomains are the public cloud's. Under "--public-names" none of their
// names leads to the real cloud, whether it is served here or not: a program that
// takes the laptop for the cloud must not send the laptop's tokens there, nor do
// there what it means for here.
var cloudDomains = []string{
	"azure.com", "azure.net", "windows.net", "azurewebsites.net", "azurecr.io", "azconfig.io", "azure-api.net", "azure-automation.net",
	"microsoftonline.com", "microsoftonline-p.com", "login.microsoft.com", "graph.microsoft.com",
	// The same of governments and countries.
	"microsoftonline.us", "azure.us", "azure-api.us", "azurecr.us", "usgovcloudapi.net", "microsoft.us",
	"microsoftonline.cn", "chinacloudapi.cn", "azure.cn", "azurecr.cn",
}

// CloudName reports whether a host name in lower case is one of the public cloud's.
func CloudName(name string) bool {
	return slices.ContainsFunc(cloudDomains, func(d string) bool { return name == d || strings.HasSuffix(name, "."+d) })
}

// checkPublic refuses a name of the public cloud that is not here.
func (p *proxy) checkPublic(name, port string) error {
	switch {
	case p.public == nil:
		return errors.New("this innate dev was started without --public-names")
	case port != "443" || !p.public(name):
		return errors.New("with --public-names no name of the public cloud leads there, and innate dev does not serve this one; " +
			"it serves sign-in, the management API, Graph and *.vault.azure.net, at port 443. Without --public-names the program reaches the real one")
	}
	return nil
}

// cloudVariables would lead a program that is to find the public cloud's names
// elsewhere, and are taken away.
var cloudVariables = []string{"AZURE_AUTHORITY_HOST", "ARM_METADATA_HOSTNAME", "ARM_METADATA_HOST", "AZURE_CLOUD"}

// Public is env for a program that is led here by the public cloud's own names.
// A variable that must not be there is empty.
func (in Instance) Public(dir string, env map[string]string, userNoProxy string) (map[string]string, error) {
	if !in.PublicNames {
		return nil, errors.New("this innate dev does not answer for the public cloud's names; start it with --public-names")
	}
	proxy, err := url.Parse(in.Endpoints.Proxy)
	if err != nil {
		return nil, fmt.Errorf("reading the proxy's address in %s: %w", instanceFile, err)
	}
	secret, _ := proxy.User.Password()
	proxy.User = url.UserPassword(publicUser, secret)
	bundle := filepath.Join(dir, publicBundleFile)
	noProxy := noProxy(append([]string{in.domain()}, cloudDomains...), userNoProxy)
	out := maps.Clone(env)
	maps.Copy(out, map[string]string{
		"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle, "CURL_CA_BUNDLE": bundle, "NODE_EXTRA_CA_CERTS": filepath.Join(dir, publicCAFile),
		"HTTPS_PROXY": proxy.String(), "https_proxy": proxy.String(), "NO_PROXY": noProxy, "no_proxy": noProxy,
	})
	for _, k := range cloudVariables {
		out[k] = ""
	}
	return out, nil
}
