package e2e

import "testing"

// Each family's management library for Go makes, reads, lists, changes and
// deletes: the program checks what it reads.
func TestFamiliesFromGo(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, family := range []string{"identity", "compute", "web", "data"} {
		t.Run(family, func(t *testing.T) {
			if r := in.as(t, "ops", "families", family); r.code != 0 || r.out != "all as it was to be\n" {
				t.Errorf("families %s: %s", family, r)
			}
		})
	}
	// Without rights, nothing is made.
	if r := in.as(t, "vm1", "families", "compute"); r.code != 1 || !r.says("AuthorizationFailed") {
		t.Errorf("as vm1: %s", r)
	}
}

// Azure's own pollers wait for what the client does not want to wait for: each
// family has another style of saying where to ask.
func TestLongRunningOperationsFromGo(t *testing.T) {
	t.Parallel()
	in := start(t)
	if r := in.as(t, "ops", "families", "longrunning"); r.code != 0 || r.out != "all as it was to be\n" {
		t.Errorf("families longrunning: %s", r)
	}
}

func TestFamiliesFromJavaScript(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, program := range []string{"families", "containers"} {
		t.Run(program, func(t *testing.T) {
			if r := in.as(t, "ops", append(language("javascript").command(t, program), "demo")...); r.code != 0 || r.out != "all as it was to be\n" {
				t.Errorf("%s: %s", program, r)
			}
		})
	}
}
