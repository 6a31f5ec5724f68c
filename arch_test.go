package innate_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// The rules of the house: who may import whom, and who may call what. They
// look at the program, not at its tests. A rule about a package that does not
// exist yet holds.

const module = "github.com/innate-id/innate"

// importRule restricts what some packages import. Patterns are package paths
// below the module, or whole import paths of others; "x/..." is x and all
// below it.
type importRule struct {
	// in are the packages that the rule is about; except are taken out.
	in, except []string
	// allow is all of this module that they may import, unless nil.
	allow []string
	// forbid is what else they may not import; "third-party" is every module
	// but this one.
	forbid []string
	why    string
}

var words = []string{"internal/problem", "internal/resource", "internal/access", "internal/audit", "internal/evidence", "internal/fleetapi", "internal/odata"}

// impure is I/O, logging and everything else that words do without.
var impure = []string{"third-party", "os/...", "net/...", "io/fs", "io/ioutil", "database/...", "log/...", "syscall", "context", "math/rand/...", "crypto/rand", "flag", "unsafe"}

// anyone is what every domain may import.
var anyone = append([]string{"internal/web"}, words...)

func with(more ...string) []string { return slices.Concat(anyone, more) }

var importRules = []importRule{
	{in: words, allow: words, forbid: impure,
		why: "words are pure: no I/O, no clock, no logger, so that they can be tested, fuzzed and shared with the agent"},
	{in: []string{"internal/problem", "internal/fleetapi"}, allow: []string{},
		why: "the lowest floor imports nothing of ours"},
	{in: []string{"internal/mask"}, allow: []string{}, forbid: []string{"third-party", "os/...", "net/http/...", "log/..."},
		why: "mask sees secrets: it knows a stream and what to hide, and has nowhere to put them"},
	{in: []string{"internal/resource", "internal/evidence", "internal/odata"}, allow: []string{"internal/problem"},
		why: "arrows run downwards: resource, evidence and odata stand on problem only"},
	{in: []string{"internal/access", "internal/audit"}, allow: []string{"internal/problem", "internal/resource"},
		why: "arrows run downwards: access and audit stand on resource"},

	{in: []string{"internal/web"}, allow: []string{"internal/problem"},
		why: "web is plumbing under every surface and knows none of them"},
	{in: []string{"internal/seal", "internal/token"}, allow: []string{"internal/problem"},
		why: "seal and token are used by those who know tenants and resources; they know neither"},
	{in: []string{"internal/cursor"}, allow: []string{"internal/problem", "internal/seal"},
		why: "a cursor is sealed text: it knows neither lists nor who may read them"},
	{in: []string{"internal/keyring"}, allow: with("internal/seal", "internal/token"),
		why: "the rooms with private keys stay small: keyring stands on seal and token"},
	{in: []string{"internal/federation"}, allow: []string{"internal/problem"}, forbid: []string{"os/...", "net/http/...", "database/...", "log/...", "context", "math/rand/...", "crypto/..."},
		why: "whether a foreign token matches is a pure function: it fetches nothing, and has no key and no clock"},
	{in: []string{"internal/issuer"}, allow: []string{"internal/problem", "internal/token"},
		why: "issuer goes out to addresses that others name: it knows how far it may go, and neither tenants nor credentials"},
	{in: []string{"internal/directory"}, allow: with("internal/federation", "internal/token"),
		why: "the directory is below every other domain"},
	{in: []string{"internal/sts"}, allow: with("internal/directory", "internal/federation", "internal/issuer", "internal/keyring", "internal/token"),
		why: "the token service asks the directory and the keyring; it does not know the management API"},
	{in: []string{"internal/arm"}, allow: with("internal/cursor", "internal/directory", "internal/federation", "internal/keyring"),
		why: "vault and fleet register their types with arm, which knows none of them by name"},
	{in: []string{"internal/graph"}, allow: with("internal/arm", "internal/cursor", "internal/directory"),
		why: "Graph is a second surface over the directory, and over the management API for groups, whose rules are there; nothing stands on it"},
	{in: []string{"internal/vault"}, allow: with("internal/arm", "internal/directory", "internal/keyring", "internal/seal"),
		why: "vault and fleet are neighbours: neither knows the other, nor the token service"},
	{in: []string{"internal/fleet"}, allow: with("internal/arm", "internal/directory", "internal/keyring", "internal/seal", "internal/token"),
		why: "vault and fleet are neighbours: neither knows the other, nor the token service"},
	{in: []string{"internal/portal/..."}, allow: with("internal/vault", "internal/fleet", "internal/arm", "internal/directory"),
		why: "the portal shows what the domains answer and reads no database"},
	{in: []string{"internal/store/..."}, except: []string{"internal/store/storetest"},
		allow: with("internal/store/...", "internal/directory", "internal/federation", "internal/arm", "internal/graph", "internal/vault", "internal/fleet", "internal/keyring", "internal/sts"),
		why:   "the store imports the domains' types, and nothing that runs them"},
	{in: []string{"internal/agent/..."}, allow: []string{"internal/problem", "internal/resource", "internal/evidence", "internal/fleetapi", "internal/agent/..."},
		why: "the agent runs as root on every host and must stay small: it links none of the control plane"},
	{in: []string{"client/...", "verify/..."}, allow: []string{"client/...", "verify/..."},
		why: "a workload that takes a token must not pay for the server"},
	{in: []string{"..."}, except: []string{"cmd/..."}, forbid: []string{module + "/cmd/..."},
		why: "cmd is the top: nobody imports it"},
	{in: []string{"..."}, except: []string{"cmd/...", "internal/dev", "innatetest/...", "internal/testkit/...", "internal/agent/..."}, forbid: []string{module + "/internal/agent/..."},
		why: "the control plane and the agent share messages (fleetapi), not code; only dev runs both in one process"},
	{in: []string{"..."}, except: []string{"cmd/...", "internal/dev", "innatetest/...", "internal/testkit/..."}, forbid: []string{module + "/internal/server/..."},
		why: "server wires everything together; only programs and dev start it"},
	{in: []string{"..."}, except: []string{"innatetest/...", "internal/testkit/...", "internal/store/storetest", "internal/agent/agenttest"},
		forbid: []string{module + "/internal/testkit/...", module + "/internal/store/storetest", module + "/internal/agent/agenttest", "testing/...", "github.com/google/go-cmp/..."},
		why:    "what helps tests is no part of the programs"},

	{in: []string{"..."}, except: []string{"internal/store/...", "internal/testkit/..."},
		forbid: []string{"database/sql/...", "github.com/jackc/pgx/...", "modernc.org/sqlite/...", "github.com/pressly/goose/..."},
		why:    "only the store knows the database"},
	{in: []string{"..."}, except: []string{"internal/token", "internal/keyring", "internal/testkit/..."}, forbid: []string{"github.com/go-jose/go-jose/..."},
		why: "only token and keyring touch the JOSE library: one place to get signatures right (testkit plays other issuers)"},
	{in: []string{"..."}, except: []string{"internal/keyring"}, forbid: []string{"github.com/smallstep/pkcs7/..."},
		why: "only keyring signs documents"},
	{in: []string{"..."}, except: []string{"internal/federation"}, forbid: []string{"cel.dev/..."},
		why: "only federation evaluates what somebody wrote, with its bounds"},
	{in: []string{"..."}, except: []string{"internal/seal"}, forbid: []string{"github.com/tink-crypto/..."},
		why: "only seal encrypts what is stored"},
	{in: []string{"..."}, except: []string{"internal/portal/..."}, forbid: []string{"html/template", "text/template"},
		why: "only the portal writes pages"},
	{in: []string{"..."}, except: []string{"cmd/..."}, forbid: []string{"flag", "github.com/spf13/..."},
		why: "only cmd reads flags; everybody else gets a config"},
}

// callRule forbids calling functions, "http.Error", by the import path of
// their package. "time.Now" as a value ("Now: time.Now") counts too.
type callRule struct {
	in, except []string
	pkg        string
	names      []string
	why        string
}

// keyRooms may touch private keys. agenttest plays the control plane in the
// agent's tests.
var keyRooms = []string{"internal/seal", "internal/keyring", "internal/agent/hostkey", "internal/agent/agenttest", "internal/testkit/..."}

const keyWhy = "only seal, keyring and hostkey touch private keys, so that there are three rooms to watch"

var callRules = []callRule{
	{in: words, pkg: "time", names: []string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc"},
		why: "words have no clock: who calls them says what time it is"},
	{in: []string{"..."}, except: []string{"cmd/..."}, pkg: "os", names: []string{"Exit"}, why: "only cmd exits the process: the rest returns errors"},
	{in: []string{"..."}, except: []string{"cmd/..."}, pkg: "log", names: []string{"Fatal", "Fatalf", "Fatalln"}, why: "only cmd exits the process: the rest returns errors"},
	{in: []string{"..."}, except: []string{"internal/web", "internal/agent/metadata", "internal/agent/door"}, pkg: "net/http", names: []string{"Error"},
		why: "a surface says errors in its own words through web.Surface; the agent's metadata endpoint is a surface of its own"},
	{in: []string{"..."}, except: keyRooms, pkg: "crypto/x509", why: keyWhy, names: []string{"ParsePKCS1PrivateKey", "ParsePKCS8PrivateKey", "ParseECPrivateKey",
		"MarshalPKCS1PrivateKey", "MarshalPKCS8PrivateKey", "MarshalECPrivateKey", "CreateCertificate", "CreateCertificateRequest", "CreateRevocationList"}},
	{in: []string{"..."}, except: keyRooms, pkg: "crypto/rsa", names: []string{"GenerateKey", "GenerateMultiPrimeKey", "SignPKCS1v15", "SignPSS"}, why: keyWhy},
	{in: []string{"..."}, except: keyRooms, pkg: "crypto/ecdsa", names: []string{"GenerateKey", "Sign", "SignASN1"}, why: keyWhy},
	{in: []string{"..."}, except: keyRooms, pkg: "crypto/ed25519", names: []string{"GenerateKey", "NewKeyFromSeed", "Sign"}, why: keyWhy},
}

// methodRule says that the exported methods of a type that take a context,
// and begin with one of the prefixes if there are any, have a parameter.
type methodRule struct {
	in, typ  string
	prefixes []string
	except   []string
	// param is the parameter's type as written, but for pointers and slices.
	param string
	why   string
}

var methodRules = []methodRule{
	{in: "internal/vault", typ: "Vault", param: "access.Caller",
		// Find says which vault a host name is, before anybody is known.
		except: []string{"Find"},
		why:    "a domain method takes who asks, so that none can be written that does not check"},
	{in: "internal/arm", typ: "API", param: "access.Caller",
		why: "a domain method takes who asks, so that none can be written that does not check"},
	{in: "internal/store", typ: "DB", prefixes: []string{"Write", "Add", "Enrol", "Evict", "Record"}, param: "audit.Event",
		why: "a write of the store takes its event, so that none goes unrecorded"},
}

// badNames say nothing of what is in a package.
var badNames = []string{"util", "utils", "common", "helper", "helpers", "service", "services", "manager", "model", "models", "misc", "base"}

func TestArchitecture(t *testing.T) {
	tree, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	if len(tree) < 10 {
		t.Fatalf("only %d packages found: the test looks at the wrong place", len(tree))
	}
	for _, fault := range tree.faults() {
		t.Error(fault)
	}
}

// pkg is a package of the module.
type pkg struct {
	dir   string // below the module, "." for the root
	files map[string]*ast.File
}

// house is all packages by directory.
type house map[string]*pkg

// load parses every file that is no test. Modules within the module have rules
// of their own.
func load(root fs.FS) (house, error) {
	out := house{}
	fset := token.NewFileSet()
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			_, mod := fs.Stat(root, path.Join(p, "go.mod"))
			if p != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") || name == "testdata" || name == "node_modules" || mod == nil) {
				return fs.SkipDir
			}
			return nil
		}
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, src, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := path.Dir(p)
		if out[dir] == nil {
			out[dir] = &pkg{dir: dir, files: map[string]*ast.File{}}
		}
		out[dir].files[p] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the module: %w", err)
	}
	return out, nil
}

func (h house) faults() []string {
	var out []string
	for _, p := range h {
		out = append(out, p.importFaults()...)
		out = append(out, p.callFaults()...)
		out = append(out, p.methodFaults()...)
		out = append(out, p.nameFaults()...)
	}
	slices.Sort(out)
	return out
}

// about reports whether a rule for in, but not except, is about dir.
func about(dir string, in, except []string) bool {
	return matchAny(in, dir) && !matchAny(except, dir)
}

func matchAny(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		below, all := strings.CutSuffix(pattern, "...")
		below = strings.TrimSuffix(below, "/")
		return p == below || all && (below == "" || strings.HasPrefix(p, below+"/"))
	})
}

func (p *pkg) importFaults() (out []string) {
	for name, f := range p.files {
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // it would not compile
			}
			for _, r := range importRules {
				if about(p.dir, r.in, r.except) && r.broken(p.dir, imp) {
					out = append(out, fmt.Sprintf("%s imports %s: %s", name, imp, r.why))
				}
			}
		}
	}
	return out
}

func (r importRule) broken(dir, imp string) bool {
	ours, internal := strings.CutPrefix(imp, module+"/")
	if internal && r.allow != nil && ours != dir && !matchAny(r.allow, ours) {
		return true
	}
	first, _, _ := strings.Cut(imp, "/")
	if !internal && strings.Contains(first, ".") && slices.Contains(r.forbid, "third-party") {
		return true
	}
	return matchAny(r.forbid, imp)
}

func (p *pkg) callFaults() (out []string) {
	for name, f := range p.files {
		local := map[string]string{} // name in the file -> import path
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			local[path.Base(imp)] = imp
			if spec.Name != nil {
				local[spec.Name.Name] = imp
				if spec.Name.Name == "." {
					out = append(out, name+" has a dot import: a reader cannot tell whose names those are")
				}
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok {
				for _, r := range callRules {
					if local[x.Name] == r.pkg && slices.Contains(r.names, sel.Sel.Name) && about(p.dir, r.in, r.except) {
						out = append(out, fmt.Sprintf("%s uses %s.%s: %s", name, r.pkg, sel.Sel.Name, r.why))
					}
				}
			}
			return true
		})
	}
	return out
}

func (p *pkg) methodFaults() (out []string) {
	for name, f := range p.files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || !fn.Name.IsExported() {
				continue
			}
			for _, r := range methodRules {
				if p.dir == r.in && r.about(fn) && !takes(fn, r.param) {
					out = append(out, fmt.Sprintf("%s: %s.%s takes no %s: %s", name, r.typ, fn.Name.Name, r.param, r.why))
				}
			}
		}
	}
	return out
}

func (r methodRule) about(fn *ast.FuncDecl) bool {
	if typeName(fn.Recv.List[0].Type) != r.typ || !takes(fn, "context.Context") || slices.Contains(r.except, fn.Name.Name) {
		return false
	}
	return r.prefixes == nil || slices.ContainsFunc(r.prefixes, func(s string) bool { return strings.HasPrefix(fn.Name.Name, s) })
}

func takes(fn *ast.FuncDecl, typ string) bool {
	return slices.ContainsFunc(fn.Type.Params.List, func(f *ast.Field) bool { return typeName(f.Type) == typ })
}

// typeName is a type as written, without pointer, slice and variadic marks.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		return typeName(e.Elt)
	case *ast.Ellipsis:
		return typeName(e.Elt)
	case *ast.SelectorExpr:
		return typeName(e.X) + "." + e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func (p *pkg) nameFaults() (out []string) {
	if slices.Contains(badNames, path.Base(p.dir)) {
		out = append(out, p.dir+" has a name that says nothing: a package is a noun of the field")
	}
	documented := false
	for name, f := range p.files {
		if slices.Contains(badNames, f.Name.Name) {
			out = append(out, name+" is in package "+f.Name.Name+", which says nothing: a package is a noun of the field")
		}
		documented = documented || f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != ""
	}
	if !documented {
		out = append(out, p.dir+" has no package comment: its first sentence says what it is, the next what a newcomer would get wrong")
	}
	return out
}

// TestArchitectureFinds plants one fault at a time in a small house.
func TestArchitectureFinds(t *testing.T) {
	for _, tt := range []struct{ file, src, why string }{
		{"internal/arm/x.go", imports(module + "/internal/vault"), "knows none of them by name"},
		{"internal/arm/x.go", imports(module + "/internal/fleet"), "knows none of them by name"},
		{"internal/sts/x.go", imports(module + "/internal/arm"), "does not know the management API"},
		{"internal/graph/x.go", imports(module + "/internal/vault"), "a second surface over the directory"},
		{"internal/vault/x.go", imports(module + "/internal/fleet"), "neighbours"},
		{"internal/directory/x.go", imports(module + "/internal/arm"), "below every other domain"},
		{"internal/access/x.go", imports("log/slog"), "words are pure"},
		{"internal/federation/x.go", imports("net/http"), "it fetches nothing"},
		{"internal/sts/x.go", imports("cel.dev/cel-go/cel"), "only federation evaluates"},
		{"internal/issuer/x.go", imports(module + "/internal/directory"), "how far it may go"},
		{"internal/evidence/x.go", imports("github.com/google/uuid"), "words are pure"},
		{"internal/resource/x.go", imports(module + "/internal/access"), "arrows run downwards"},
		{"internal/audit/x.go", "import \"time\"\nvar _ = time.Now", "words have no clock"},
		{"internal/audit/x.go", "import t \"time\"\nvar _ = t.Now()", "words have no clock"},
		{"internal/agent/door/x.go", imports(module + "/internal/directory"), "runs as root"},
		{"internal/server/x.go", imports(module + "/internal/agent"), "share messages"},
		{"internal/vault/x.go", imports(module + "/internal/server"), "only programs and dev"},
		{"internal/vault/x.go", imports(module + "/internal/testkit"), "no part of the programs"},
		{"internal/vault/x.go", imports("database/sql"), "only the store"},
		{"internal/fleet/x.go", imports("github.com/jackc/pgx/v5/pgconn"), "only the store"},
		{"internal/sts/x.go", imports("github.com/go-jose/go-jose/v4/jwt"), "JOSE"},
		{"internal/vault/x.go", imports("github.com/tink-crypto/tink-go/v2/aead"), "only seal encrypts"},
		{"internal/sts/x.go", imports("html/template"), "only the portal"},
		{"internal/server/x.go", imports("flag"), "only cmd reads flags"},
		{"internal/server/x.go", "import \"os\"\nfunc f() { os.Exit(1) }", "only cmd exits"},
		{"internal/vault/x.go", "import \"net/http\"\nvar _ = http.Error", "in its own words"},
		{"internal/fleet/x.go", "import \"crypto/x509\"\nvar _ = x509.ParsePKCS8PrivateKey", "three rooms to watch"},
		{"internal/sts/x.go", "import \"crypto/rsa\"\nvar _ = rsa.GenerateKey", "three rooms to watch"},
		{"client/x.go", imports(module + "/internal/problem"), "must not pay for the server"},
		{"internal/vault/x.go", "func (v *Vault) Peek(ctx context.Context, name string) {}", "takes who asks"},
		{"internal/store/x.go", "func (db *DB) WriteAll(ctx context.Context, fn func()) error { return nil }", "goes unrecorded"},
		{"internal/util/x.go", "", "says nothing"},
		{"internal/vault/x.go", "import . \"time\"", "dot import"},
	} {
		name := path.Base(path.Dir(tt.file))
		h, err := load(fstest.MapFS{tt.file: {Data: []byte("// Package " + name + " is.\npackage " + name + "\n" + tt.src)}})
		if err != nil {
			t.Fatal(err)
		}
		got := h.faults()
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, tt.why) && strings.HasPrefix(s, path.Dir(tt.file)) }) {
			t.Errorf("%s with %q: faults %q, want one with %q", tt.file, tt.src, got, tt.why)
		}
	}
}

func TestArchitectureAllows(t *testing.T) {
	h, err := load(fstest.MapFS{
		"cmd/innated/main.go":          {Data: []byte("// Command innated is.\npackage main\nimport (\n\"flag\"\n\"" + module + "/internal/server\"\n)")},
		"internal/vault/vault.go":      {Data: []byte("// Package vault is.\npackage vault\nimport \"" + module + "/internal/arm\"\nfunc (v *Vault) Get(ctx context.Context, c access.Caller) {}")},
		"internal/store/store.go":      {Data: []byte("// Package store is.\npackage store\nimport \"database/sql\"\nfunc (db *DB) Record(ctx context.Context, evs ...audit.Event) {}\nfunc (db *DB) Recorded() {}")},
		"internal/access/access.go":    {Data: []byte("// Package access is.\npackage access\nimport \"time\"\nvar _ time.Duration")},
		"internal/vault/x_test.go":     {Data: []byte("package vault_test\nimport \"database/sql\"")},
		"e2e/go.mod":                   {Data: []byte("module e2e")},
		"e2e/util/x.go":                {Data: []byte("package util")},
		"internal/arm/testdata/bad.go": {Data: []byte("not Go")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.faults(); got != nil {
		t.Errorf("faults in a house without any: %q", got)
	}
}

func imports(p string) string { return "import _ " + strconv.Quote(p) }
