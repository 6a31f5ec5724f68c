package main

import "testing"

// The public cloud is no installation of ours: a management token that were
// sent to a name of its would be somebody else's.
func TestInstallationIsNotThePublicCloud(t *testing.T) {
	t.Setenv("AZURE_SUBSCRIPTION_ID", "51515151-0000-4000-8000-000000000005")
	for value, want := range map[string]string{
		"https://login.id.example.com:8443":      "https://management.id.example.com:8443",
		"https://login.id.example.com/":          "https://management.id.example.com",
		"http://login.id.example.com":            "",
		"https://sign-in.example.com":            "",
		"https://login.microsoftonline.com":      "",
		"https://login.MicrosoftOnline.com:443/": "",
		"https://login.windows.net":              "",
		"https://login.microsoftonline.us":       "",
		"https://login.chinacloudapi.cn":         "",
		"login.id.example.com":                   "",
		"":                                       "",
	} {
		t.Setenv("AZURE_AUTHORITY_HOST", value)
		got := ""
		if in := elsewhere(); in != nil {
			got = in.Endpoints.Management
		}
		if got != want {
			t.Errorf("with AZURE_AUTHORITY_HOST=%s the management API is %q, want %q", value, got, want)
		}
	}
}
