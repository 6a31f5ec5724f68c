package dev

import "testing"

// TestNoProxyKeepsTheUsersOwn: what stayed inside before stays inside, and our
// own names always go to the proxy.
func TestNoProxyKeepsTheUsersOwn(t *testing.T) {
	const addresses = "127.0.0.1,::1,169.254.169.254"
	for _, tt := range []struct{ domain, user, want string }{
		{"innate.localhost", "", addresses},
		{"innate.localhost", "corp.example,.intra, 10.0.0.0/8", addresses + ",corp.example,.intra,10.0.0.0/8"},
		{"innate.localhost", "localhost,*.localhost,.localhost,LOCALHOST.,corp.example", addresses + ",corp.example"},
		{"innate.localhost", "innate.localhost:8443,.vault.innate.localhost,*,,.", addresses},
		{"innate.localhost", "127.0.0.1,::1", addresses},
		{"innate.localhost", "notinnate.localhost.example", addresses + ",notinnate.localhost.example"},
		// Some clients match suffixes of the text, not of the labels.
		{"innate.localhost", "*host", addresses},
		{"id.example.com", "localhost,example.com,.com,other.example.com", addresses + ",localhost,other.example.com"},
	} {
		if got := noProxy([]string{tt.domain}, tt.user); got != tt.want {
			t.Errorf("noProxy(%q, %q) = %q, want %q", tt.domain, tt.user, got, tt.want)
		}
	}
}
