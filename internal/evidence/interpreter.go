package evidence

import (
	"path"
	"slices"
	"strings"
)

// interpreters are executables that run what they are given; a version behind
// the name ("python3.11", "lua5.4", "php-fpm8.2") is taken off first.
var interpreters = []string{
	"ash", "awk",
	"bash", "beam.smp", "bun", "busybox", "csh", "dash", "deno", "dotnet", "elvish", "erl", "escript", "expect", "fish",
	"gawk", "gdb", "guile", "irb", "java", "javaw", "jjs", "jruby", "jshell", "julia", "ksh", "lua", "luajit", "mawk", "micropython", "mksh",
	"mono", "mono-sgen", "nawk", "node", "nodejs", "nu", "octave", "octave-cli", "perl", "php", "php-cgi", "php-fpm", "phpdbg", "posh", "powershell",
	"pwsh", "pypy", "python", "pythonw", "R", "raku", "rbash", "rc", "Rscript", "ruby", "runghc", "sash", "scheme", "sh", "swipl", "tclsh", "tcsh",
	"toybox", "ts-node", "uwsgi", "wasmer", "wasmtime", "wine", "wine-preloader", "wine64", "wine64-preloader", "wish", "yash", "zsh",
}

// IsInterpreter reports whether a program runs others that it is given, by its
// file's own name: what links to it does not count.
func IsInterpreter(file string) bool {
	base := path.Base(file)
	if strings.HasPrefix(base, "ld-") || base == "ld.so" || strings.HasPrefix(base, "ld.so.") {
		return true // the dynamic loader, given a program: ld-linux-x86-64.so.2 ./prog
	}
	if strings.HasPrefix(base, "qemu-") && !strings.HasPrefix(base, "qemu-system-") {
		return true // runs a program of another architecture
	}
	// "python3.11-dbg" and "ruby-mri" are python and ruby.
	for _, name := range []string{base, strings.TrimRight(base, "0123456789.-"), cutVersion(base)} {
		if slices.Contains(interpreters, name) {
			return true
		}
	}
	return false
}

// cutVersion cuts at the first digit and at what hangs there.
func cutVersion(base string) string {
	if i := strings.IndexAny(base, "0123456789"); i > 0 {
		base = base[:i]
	}
	return strings.TrimRight(base, ".-")
}
