package web

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// urls are all that answers may hold.
func urls(n Names) []string {
	return []string{n.Login(), n.Issuer(), n.Management(), n.Graph(), n.Vaults(), n.Vault("demo"), n.StorageSuffix(), n.Portal()}
}

func TestNamesByWhichTheyWereAsked(t *testing.T) {
	own := []string{
		"https://login.d.test:8443", "https://login.d.test:8443", "https://management.d.test:8443", "https://graph.d.test:8443",
		"https://vault.d.test:8443", "https://demo.vault.d.test:8443", "d.test:8443", "https://portal.d.test:8443",
	}
	cloud := []string{
		"https://login.microsoftonline.com", "https://sts.windows.net", "https://management.azure.com", "https://graph.microsoft.com",
		"https://vault.azure.net", "https://demo.vault.azure.net", "core.windows.net", "https://portal.d.test:8443",
	}
	for _, tt := range []struct {
		host   string
		public bool
		want   []string
	}{
		{"management.azure.com", true, cloud},
		{"login.windows.net", true, cloud},
		{"demo.vault.azure.net", true, cloud},
		{"management.d.test", true, own},
		{"", true, own},
		{"management.azure.com", false, own}, // nobody asked for them
		// Not served, whoever else may have them.
		{"vault.azure.net", true, own},
		{".vault.azure.net", true, own},
		{"a.demo.vault.azure.net", true, own},
		{"demo.blob.core.windows.net", true, own},
		{"portal.azure.com", true, own},
		{"management.azure.com.d.test", true, own},
	} {
		n := Names{Domain: "d.test", Port: 8443, Public: tt.public}
		if diff := cmp.Diff(tt.want, urls(n.Asked(tt.host))); diff != "" {
			t.Errorf("asked by %q, public names %v (-want +got):\n%s", tt.host, tt.public, diff)
		}
		// Whoever asks next is not bound by who asked before.
		if diff := cmp.Diff(own, urls(n.Asked(tt.host).Asked("login.d.test"))); diff != "" {
			t.Errorf("asked by our own name after %q (-want +got):\n%s", tt.host, diff)
		}
	}
}
