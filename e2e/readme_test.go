package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// block is a shell script in the README.
type block struct{ name, script string }

var marked = regexp.MustCompile("(?ms)^<!-- test: ([a-z0-9-]+) -->\n```sh\n(.*?)^```$")

// blocks are the scripts of a text: fenced as sh, after a comment that names
// them.
func blocks(text string) []block {
	var out []block
	for _, m := range marked.FindAllStringSubmatch(text, -1) {
		out = append(out, block{m[1], m[2]})
	}
	return out
}

// printed is what a reader is promised to see; a script of another name has
// only to work.
var printed = map[string]string{
	"first-secret": greeting,
	"curl":         greeting,
	"refused":      "vm2 has no managed identity",
	"audit":        "Microsoft.KeyVault/vaults/secrets/getSecret on Microsoft.KeyVault/vaults/demo/secrets/greeting",
	"grant":        greeting,
	"who-can":      `role "Key Vault Secrets User" at `,
	"rules":        "no caller rule of the resource allows it",
	"exec":         "the greeting is ***",
}

// The README's commands work as they stand there, one after the other, as its
// reader runs them.
func TestREADME(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	b, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	scripts := blocks(string(b))
	if len(scripts) == 0 {
		t.Fatal("the README has no script after a comment <!-- test: NAME -->")
	}
	if marks := strings.Count(string(b), "<!-- test:"); marks != len(scripts) {
		t.Errorf("the README marks %d scripts as tests, but %d follow their marks as ```sh", marks, len(scripts))
	}
	in := start(t)
	for _, s := range scripts {
		r := in.exec(t, "", "sh", "-ec", refusals(s.script))
		if r.code != 0 || !r.says(printed[s.name]) {
			t.Errorf("%s:\n%s\n%s\nwant it to work and to print %q", s.name, s.script, r, printed[s.name])
		}
	}
}

var refused = regexp.MustCompile(`(?m)^! (.*)$`)

// refusals makes a line that begins with "!" end the script if its command
// works: "sh -e" by itself goes on after it either way.
func refusals(script string) string {
	return refused.ReplaceAllString(script, `if $1; then echo "that was to be refused" >&2; exit 1; fi`)
}

func TestBlocks(t *testing.T) {
	got := blocks("text\n\n<!-- test: one -->\n```sh\na\nb\n```\n\n```sh\nunmarked\n```\n<!-- test: two -->\n```sh\nc\n```\n<!-- test: three -->\n\n```\nno shell\n```\n")
	if len(got) != 2 || got[0] != (block{"one", "a\nb\n"}) || got[1] != (block{"two", "c\n"}) {
		t.Errorf("blocks = %q", got)
	}
}
