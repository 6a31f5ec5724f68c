package server

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/fleet"
	"github.com/innate-id/innate/internal/seal"
	"github.com/innate-id/innate/internal/sts"
	"github.com/innate-id/innate/internal/vault"
	"github.com/innate-id/innate/internal/web"
)

// Config is the configuration of innated, a YAML file. Secrets are never in
// it: it names files that hold them. An unknown key is an error.
type Config struct {
	// Domain is the parent of all host names: login.{domain},
	// management.{domain}, {name}.vault.{domain}, fleet.{domain}. Required.
	Domain string `yaml:"domain"`
	// Listen is the TLS listener's address. Default ":8443".
	Listen string `yaml:"listen"`
	// Port is the port that clients see, if it is not the listener's: behind
	// a load balancer, 443.
	Port int `yaml:"port"`
	// Database is where everything is kept. Required.
	Database Database `yaml:"database"`
	// RootKeyFile holds the key that everything secret in the database is
	// sealed under: mode 0600, made by "innated bootstrap". Keep a copy apart
	// from the database's backups: without it they cannot be read. Required.
	RootKeyFile string `yaml:"root_key_file"`
	// TLS says which certificates the listener shows. Required.
	TLS TLS `yaml:"tls"`
	// Replica names this process among the replicas that share the database;
	// each needs its own. Default: the machine's host name.
	Replica string `yaml:"replica"`
	// TokenLife is how long access tokens live: "10m" to "24h". Default "1h".
	TokenLife string `yaml:"token_life"`
	// ResourceTypes are resource types besides Innate's own, for resources of
	// yours that have identities. A type that is taken away again leaves its
	// resources as they are, out of reach until it is back; their identities
	// live on.
	ResourceTypes []ResourceType `yaml:"resource_types"`
	// PublicNames makes the listener answer for the public cloud's own names
	// too. It is for "innate dev" alone, and no setting of innated: only on the
	// machine of whoever asked for it may those names lead here.
	PublicNames bool `yaml:"-"`
	// Federation says which other issuers may be asked for their keys, when a
	// federated identity credential trusts them.
	Federation Federation `yaml:"federation"`
	// IdentityRetention is how long a deleted user-assigned identity can be
	// recovered, with its role assignments: up to "2160h" (90 days); "0s" keeps
	// none. Default "720h" (30 days).
	IdentityRetention string `yaml:"identity_retention"`
	// Limits are how much one principal may ask of the management API and of
	// Graph, so that a program in a loop takes nothing from the others. Who is
	// over them is refused with 429 and told when to come again.
	Limits Limits `yaml:"limits"`
}

// Limits are of each principal in each subscription; what names none, Graph too,
// counts as the tenant's. Each replica counts by itself, and forgets when it
// ends: n replicas answer up to n times as much.
type Limits struct {
	// Reads are GET and HEAD.
	Reads Rate `yaml:"reads"`
	// Writes are everything else. Deletes have the same figures, and count by
	// themselves.
	Writes Rate `yaml:"writes"`
}

// Rate is a bucket of requests. What is absent has its default.
type Rate struct {
	// PerSecond is how many requests come back each second. Default 2000; 0
	// means no limit, and answers do not say what is left.
	PerSecond *float64 `yaml:"per_second"`
	// Burst is how many there are at most, and so can be asked at once. Default
	// 20000.
	Burst *int `yaml:"burst"`
}

func (r Rate) of() arm.Rate {
	out := arm.DefaultRate
	if r.PerSecond != nil {
		out.PerSecond = *r.PerSecond
	}
	if r.Burst != nil {
		out.Burst = *r.Burst
	}
	return out
}

func (l Limits) of(now func() time.Time) *arm.Limits {
	return arm.NewLimits(l.Reads.of(), l.Writes.of(), now)
}

// Federation bounds where credentials can have this program connect to. The
// addresses are looked at when a connection is made, whatever the name said
// before; link-local ones, where machines have their metadata, are never asked.
type Federation struct {
	// Reach is how far inwards an issuer may be: "public" for the Internet
	// alone, "private" for one's own networks too, "loopback" for this machine
	// too. Default "private": the issuers of one's own clusters are there.
	Reach string `yaml:"reach"`
	// Hosts are all host names that issuers, and where they keep their keys, may
	// have; "*.example.com" is those below example.com. Default: any.
	Hosts []string `yaml:"hosts"`
	// CAFile is PEM: whom to trust for issuers' certificates. Default: whom
	// the system trusts.
	CAFile string `yaml:"ca_file"`
}

// ResourceType is one more resource type.
type ResourceType struct {
	// Type is "Namespace.Part/type", in the spelling that clients read; or
	// "Namespace.Part/type/child", below a type that there is. It cannot be one
	// of Innate's own, nor in the namespaces of rights and identities
	// (Microsoft.Authorization, Microsoft.Resources, Microsoft.ManagedIdentity,
	// Microsoft.Management, Innate.*). The rights to it are {type}/read,
	// {type}/write and {type}/delete. Required.
	Type string `yaml:"type"`
	// Identity says which identities a resource can have, as clients read it of
	// one that has all of them: "SystemAssigned, UserAssigned", the same without
	// the space, "SystemAssigned", "UserAssigned". Default "None".
	Identity string `yaml:"identity"`
	// NoLocation: resources need no location.
	NoLocation bool `yaml:"no_location"`
	// Extension: a resource says something of another resource, and is below it:
	// {resource}/providers/{type}/{name}.
	Extension bool `yaml:"extension"`
}

// registered are the types as the management API takes them.
func registered(types []ResourceType) []arm.Registered {
	var out []arm.Registered
	for _, t := range types {
		out = append(out, arm.Registered{Name: t.Type, Identity: t.Identity, NoLocation: t.NoLocation, Extension: t.Extension})
	}
	return out
}

// CheckTypes says all that is wrong with resource types.
func CheckTypes(types []ResourceType) error {
	own := slices.Concat(arm.Own(web.Names{}, func(string) bool { return false }), []*arm.Type{vault.Type(nil)}, (&fleet.Fleet{}).Types())
	_, err := arm.Rows(own, registered(types))
	return err
}

// ReadTypes reads resource types from a file that has resource_types, as the
// configuration has them, and nothing else.
func ReadTypes(path string) ([]ResourceType, error) {
	var c struct {
		ResourceTypes []ResourceType `yaml:"resource_types"`
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading resource types: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("reading resource types from %s:\n%s", path, yaml.FormatError(err, false, true))
	}
	if len(c.ResourceTypes) == 0 {
		return nil, fmt.Errorf("%s has no resource_types, a list with type, identity, no_location and extension", path)
	}
	if err := CheckTypes(c.ResourceTypes); err != nil {
		return nil, fmt.Errorf("%s: resource_types:\n%w", path, err)
	}
	return c.ResourceTypes, nil
}

// Database is one of two.
type Database struct {
	// SQLite is a file's path. One innated alone can use it, and bootstrap
	// only while innated is stopped; a file beside it, .lock, sees to that.
	SQLite string `yaml:"sqlite"`
	// PostgresFile is the path of a file that holds a connection string
	// (postgres://user:password@host/name?sslmode=verify-full).
	PostgresFile string `yaml:"postgres_file"`
}

// TLS is one of two.
type TLS struct {
	// CertificateFile and KeyFile are PEM. The certificate must be good for
	// *.{domain} and *.vault.{domain}. Both are read again when they change.
	CertificateFile string `yaml:"certificate_file"`
	KeyFile         string `yaml:"key_file"`
	// LocalCA makes the installation its own certificate authority, confined
	// to the domain. Its certificate is at https://portal.{domain}/ca.pem and
	// is printed by bootstrap.
	LocalCA bool `yaml:"local_ca"`
}

var domainName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ReadConfig reads and checks a file. All that is wrong with it is in the error.
func ReadConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := yaml.UnmarshalWithOptions(b, &c, yaml.Strict()); err != nil {
		return c, fmt.Errorf("reading the configuration %s:\n%s", path, yaml.FormatError(err, false, true))
	}
	c.fill()
	if err := c.Validate(); err != nil {
		return c, fmt.Errorf("the configuration %s is not valid:\n%w", path, err)
	}
	return c, nil
}

const (
	defaultRetention = 30 * 24 * time.Hour
	maxRetention     = 90 * 24 * time.Hour
)

// retention is the setting, or its default where there is no file.
func (c *Config) retention() (time.Duration, error) {
	if c.IdentityRetention == "" {
		return defaultRetention, nil
	}
	return time.ParseDuration(c.IdentityRetention)
}

func (c *Config) fill() {
	if c.Listen == "" {
		c.Listen = ":8443"
	}
	if c.Replica == "" {
		c.Replica, _ = os.Hostname() // without one, Validate asks for the setting
	}
	if c.TokenLife == "" {
		c.TokenLife = sts.DefaultLife.String()
	}
	if c.IdentityRetention == "" {
		c.IdentityRetention = defaultRetention.String()
	}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !ValidDomain(c.Domain) {
		bad("domain: %q is not a domain name of two labels or more, in lower case, without \"token\" (clients rewrite that word in URLs)", c.Domain)
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen: %q is not host:port", c.Listen)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		bad("listen: %q is not a port", port)
	}
	if c.Port < 0 || c.Port > 65535 {
		bad("port: %d is not between 1 and 65535", c.Port)
	}
	if (c.Database.SQLite == "") == (c.Database.PostgresFile == "") {
		bad("database: exactly one of sqlite and postgres_file is needed")
	}
	if c.RootKeyFile == "" {
		bad("root_key_file: missing; \"innated bootstrap\" makes the file")
	}
	files := c.TLS.CertificateFile != "" && c.TLS.KeyFile != ""
	if files == c.TLS.LocalCA || (c.TLS.CertificateFile == "") != (c.TLS.KeyFile == "") {
		bad("tls: either certificate_file and key_file, or local_ca: true")
	}
	if c.Replica == "" || strings.EqualFold(c.Replica, "management") || len(c.Replica) > 64 {
		bad("replica: %q is not a name of 1 to 64 characters other than \"management\"", c.Replica)
	}
	if d, err := time.ParseDuration(c.TokenLife); err != nil || d < sts.MinLife || d > sts.MaxLife {
		bad("token_life: %q is not a duration from %s to %s", c.TokenLife, sts.MinLife, sts.MaxLife)
	}
	if err := CheckTypes(c.ResourceTypes); err != nil {
		bad("resource_types: %w", err)
	}
	if err := c.Federation.check(); err != nil {
		errs = append(errs, err)
	}
	for name, r := range map[string]Rate{"reads": c.Limits.Reads, "writes": c.Limits.Writes} {
		if err := r.of().Check(); err != nil {
			bad("limits.%s: %w", name, err)
		}
	}
	if d, err := c.retention(); err != nil || d < 0 || d > maxRetention {
		bad("identity_retention: %q is not a duration from 0s to %s", c.IdentityRetention, maxRetention)
	}
	return errors.Join(errs...)
}

// CheckFiles reads the files that the configuration names, as a start does.
// The root key may be missing: bootstrap makes it.
func (c *Config) CheckFiles() error {
	var errs []error
	if _, err := os.Lstat(c.RootKeyFile); !errors.Is(err, fs.ErrNotExist) {
		_, err := seal.OpenFile(c.RootKeyFile)
		errs = append(errs, err)
	}
	if !c.TLS.LocalCA {
		_, err := (&certificates{files: c.TLS}).fromFiles()
		errs = append(errs, err)
	}
	if _, err := c.Federation.roots(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ValidDomain reports whether d can be the parent of an installation's names.
func ValidDomain(d string) bool {
	return len(d) <= 200 && domainName.MatchString(d) && !strings.Contains(d, "token")
}

// postgres reads the connection string.
func (d Database) postgres() (string, error) {
	if d.PostgresFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(d.PostgresFile)
	if err != nil {
		return "", fmt.Errorf("reading database.postgres_file: %w", err)
	}
	s := strings.TrimSpace(string(b))
	if u, err := url.Parse(s); err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", fmt.Errorf("database.postgres_file %s does not hold a postgres:// URL", d.PostgresFile)
	}
	return s, nil
}
