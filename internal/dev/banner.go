package dev

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/vault"
)

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return raw
	}
	return u.Host
}

func (d *dev) exists(ctx context.Context, id resource.ID) (bool, error) {
	_, err := d.srv.DB.Resource(ctx, d.ids.Tenant, id.Key())
	if problem.Is(err, problem.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// vaults lists the names of the tenant's vaults.
func (d *dev) vaults(ctx context.Context) ([]string, error) {
	rs, err := d.srv.DB.Resources(ctx, d.ids.Tenant, "", vault.TypeVault, arm.Page{Limit: 1000})
	if err != nil {
		return nil, fmt.Errorf("listing the vaults: %w", err)
	}
	var out []string
	for _, r := range rs {
		out = append(out, strings.ToLower(r.ID.Name()))
	}
	return out, nil
}

// banner says where things are and what to try; its last line begins with
// "ready".
func (d *dev) banner() {
	e := d.in.Endpoints
	p := func(format string, args ...any) { fmt.Fprintf(d.opt.Out, format+"\n", args...) }
	p("Innate %s", server.Version)
	p("  token service    %s", e.Login)
	p("  management API   %s", e.Management)
	p("  Graph            %s", e.Graph)
	p("  portal           %s", e.Portal)
	p("  local endpoint   %s  (managed identities)", e.Metadata)
	var names []string
	for n := range d.in.Vaults {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		p("  vault %-10s %s", n, d.in.Vaults[n])
	}
	p("  data             %s", d.dir)
	if lines := d.try(); len(lines) > 0 {
		p("")
		p("Try, in a second terminal:")
		for _, l := range lines {
			p("  %s", l)
		}
	}
	p("")
	p("ready: %s", d.dir)
}

// try are commands that work, with what is there.
func (d *dev) try() []string {
	innate, flag := self(), ""
	if def, err := DataDir(""); err != nil || def != d.dir {
		flag = " --data " + quote(d.dir)
	}
	has := func(name string) bool { _, ok := d.in.Resources[name]; return ok }
	secret := d.in.Vaults[sampleVault] != ""
	var out []string
	for _, l := range []struct {
		there bool
		args  string
	}{
		{has("vm1") && secret, "run" + flag + " vm1 -- innate secret get demo/greeting"},
		{has("vm2") && secret, "run" + flag + " vm2 -- innate secret get demo/greeting     # no identity: refused"},
		{has("vm1"), "run" + flag + " vm1 -- innate token --resource https://vault.azure.net --decode"},
		{has(owner) && !has("vm1"), "run" + flag + " ops -- innate token --resource https://management.azure.com/ --decode"},
		{has(owner), "audit tail" + flag},
	} {
		if l.there {
			out = append(out, innate+" "+l.args)
		}
	}
	return out
}

// self is how a shell calls this program: by its name where that finds it.
// Within "innate run" the name always does.
func self() string {
	exe, err := os.Executable()
	if err != nil {
		return "innate"
	}
	if found, err := exec.LookPath("innate"); err == nil {
		a, aerr := os.Stat(found)
		b, berr := os.Stat(exe)
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			return "innate"
		}
	}
	// "go run" builds into a folder of its own that is gone afterwards.
	if strings.Contains(exe, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/innate"
	}
	return quote(exe)
}

// quote makes a path one shell word.
func quote(s string) string {
	if strings.ContainsAny(s, " '\"$\\`!*?[](){}<>|&;#~\t\n") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
