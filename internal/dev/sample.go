package dev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/google/renameio/v2"

	"github.com/innate-id/innate/internal/access"
	"github.com/innate-id/innate/internal/problem"
	"github.com/innate-id/innate/internal/resource"
	"github.com/innate-id/innate/internal/server"
	"github.com/innate-id/innate/internal/vault"
)

const (
	group    = "demo"
	location = "local"
	hostName = "dev"
	owner    = "ops"

	roleSecretsUser    = "4633458b-17de-408a-b874-0445c86b69e6"
	roleSecretsOfficer = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
)

// samples are the sample's workloads, each with its type. Each has a door of its
// own, a loopback port that answers this user's programs as the workload, for
// clients that can send no header of ours.
var samples = []struct{ name, typ string }{
	{"vm1", "Microsoft.Compute/virtualMachines"},
	{"vm2", "Microsoft.Compute/virtualMachines"},
	{"app1", "Microsoft.Web/sites"},
	{owner, "Innate.Build/agentPools"},
}

const (
	sampleVault  = "demo"
	sampleShared = "shared"
)

// seed makes the sample. Every step can be done again: one that was cut short
// is completed at the next start.
func seed(ctx context.Context, s *server.Server, b server.Bootstrapped) error {
	w := &server.Builder{Server: s, Caller: access.SystemCaller(b.Tenant, "sample")}
	id := func(typ, name string) resource.ID {
		return resource.MustParse(b.Group.String() + "/providers/" + typ + "/" + name)
	}
	vm1, vm2, app1 := id(samples[0].typ, "vm1"), id(samples[1].typ, "vm2"), id(samples[2].typ, "app1")
	shared := id("Microsoft.ManagedIdentity/userAssignedIdentities", sampleShared)
	demo := id(vault.TypeVault, sampleVault)
	for _, step := range []func() error{
		func() error { return w.Put(ctx, shared, map[string]any{"location": location}) },
		func() error {
			return w.Put(ctx, vm1, map[string]any{"location": location, "identity": map[string]any{"type": "SystemAssigned"}})
		},
		func() error { return w.Put(ctx, vm2, map[string]any{"location": location}) },
		func() error {
			return w.Put(ctx, app1, map[string]any{"location": location, "kind": "functionapp", "identity": map[string]any{
				"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": map[string]any{shared.String(): map[string]any{}},
			}})
		},
		func() error { return w.Put(ctx, demo, map[string]any{"location": location}) },
		func() error { return greet(ctx, s, w.Caller) },
		func() error { return w.Assign(ctx, vm1, roleSecretsUser, demo) },
		func() error { return w.Assign(ctx, shared, roleSecretsUser, demo) },
		// An owner has no data; the operator of a laptop keeps its secrets.
		func() error { return w.Assign(ctx, b.Owner, roleSecretsOfficer, demo) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("making the sample: %w", err)
		}
	}
	return nil
}

// greet sets the sample's secret, unless somebody has set or deleted it.
func greet(ctx context.Context, s *server.Server, c access.Caller) error {
	at, err := s.Vault.Find(ctx, sampleVault)
	if err != nil {
		return err
	}
	_, _, err = s.Vault.Get(ctx, c, at, "greeting", "")
	if !problem.Is(err, problem.NotFound) {
		return err
	}
	_, err = s.Vault.Set(ctx, c, at, "greeting", func() (vault.New, error) {
		return vault.New{Value: "Hello from Innate. This secret was read without a credential."}, nil
	})
	if problem.Is(err, problem.DeletedRecoverable) {
		return nil
	}
	return err
}

// place puts the sample's workloads on this machine: each may be started by
// the user who runs innate dev, and answers that user at its own door.
func place(ctx context.Context, s *server.Server, b server.Bootstrapped) error {
	w := &server.Builder{Server: s, Caller: access.SystemCaller(b.Tenant, "sample")}
	for _, x := range samples {
		id := resource.MustParse(b.Group.String() + "/providers/" + x.typ + "/" + x.name)
		if _, err := s.DB.Resource(ctx, b.Tenant, id.Key()); problem.Is(err, problem.NotFound) {
			continue
		} else if err != nil {
			return fmt.Errorf("reading %s: %w", id, err)
		}
		if err := w.Place(ctx, b.Host, "run-"+x.name, "run", uidSelector(), id); err != nil {
			return err
		}
		if err := w.Place(ctx, b.Host, x.name, x.name, uidSelector(), id); err != nil {
			return err
		}
	}
	return nil
}

func uidSelector() []string { return []string{"unix:uid:" + strconv.Itoa(os.Getuid())} }

// once remembers a finished step of the first start. Its absence only means
// that the step is done again.
func (d *dev) once(name string, f func() error) error {
	path := d.done(name)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := f(); err != nil {
		return err
	}
	if err := renameio.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("remembering that %s is done: %w", name, err)
	}
	return nil
}

// forget has a step done again.
func (d *dev) forget(name string) error {
	if err := os.Remove(d.done(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("having %s done again: %w", name, err)
	}
	return nil
}

func (d *dev) done(name string) string { return filepath.Join(d.dir, name+".done") }
