package evidence

import "testing"

func TestInterpreters(t *testing.T) {
	for base, want := range map[string]bool{
		"python3.11": true, "python3": true, "python": true, "python3.11-dbg": true, "pypy3": true, "node": true, "nodejs": true, "java": true,
		"sh": true, "dash": true, "bash": true, "zsh-5.9": true, "busybox": true, "perl": true, "perl5.36.0": true, "ruby3.1": true, "php8.2": true,
		"php-fpm8.2": true, "php-cgi": true, "dotnet": true, "pwsh": true, "deno": true, "bun": true, "lua5.4": true, "tclsh8.6": true, "R": true, "Rscript": true,
		"qemu-aarch64": true, "qemu-x86_64-static": true, "ld-linux-x86-64.so.2": true, "ld-musl-x86_64.so.1": true, "ld-2.36.so": true, "ld.so": true, "ld.so.1": true,
		"gawk": true, "wine64": true, "beam.smp": true, "guile-3.0": true,
		"shop": false, "nginx": false, "shell": false, "java-thing": false, "pythonista": false, "qemu-system-x86_64": false, "ldconfig": false, "7z": false, "": false, "1": false,
		"rclone": false, "node_exporter": false,
	} {
		if got := IsInterpreter(base); got != want {
			t.Errorf("IsInterpreter(%q) = %v, want %v", base, got, want)
		}
	}
}
