package innate_test

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// rooms are the directories of packages that the pages call by another name
// than their path below internal.
var rooms = map[string]string{"e2e": "e2e", "innate": "cmd/innate", "innated": "cmd/innated", "innate-agent": "cmd/innate-agent", "systemd": "deploy/systemd"}

var (
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	testName = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`)
	// inPackage is "`arm`: TestA, TestB" or "e2e: TestA".
	inPackage = regexp.MustCompile("(?:`([\\w/-]+)`|\\b(e2e)): ((?:(?:Test|Fuzz)\\w+(?:, )?)+)")
)

// TestPagesNameTestsThatThereAre: what a page says a test shows is shown by one,
// in the package that it says.
func TestPagesNameTestsThatThereAre(t *testing.T) {
	in, anywhere := map[string]bool{}, map[string]bool{}
	err := fs.WalkDir(os.DirFS("."), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case !strings.HasSuffix(p, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(p)
		for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
			anywhere[m[1]], in[path.Dir(p)+" "+m[1]] = true, true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"docs/threat-model.md", "docs/divergences.md", "CONTRIBUTING.md"} {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		names := testName.FindAllString(string(b), -1)
		if len(names) == 0 {
			t.Errorf("%s names no test", page)
		}
		for _, name := range names {
			if !anywhere[name] {
				t.Errorf("%s names %s, which is no test", page, name)
			}
		}
		for _, m := range inPackage.FindAllStringSubmatch(string(b), -1) {
			dir, ok := rooms[m[1]+m[2]]
			if !ok {
				dir = "internal/" + m[1]
			}
			for _, name := range testName.FindAllString(m[3], -1) {
				if !in[dir+" "+name] {
					t.Errorf("%s says that %s is in %s; name the package that it is in", page, name, dir)
				}
			}
		}
	}
}
