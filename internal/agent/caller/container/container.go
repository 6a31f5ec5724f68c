// Package container says which container a process is in, and what the
// runtime that made it says about it.
//
// What a newcomer would get wrong: whoever is root inside a container, or has a
// user manager, may make cgroups of any name below his own. So an id is only
// read where nobody but the host's init and its runtimes make cgroups, and
// the outermost is the container ([Of]); a runtime's word about that id counts
// only if the runtime's own process of that container is in that very cgroup
// ([Runtimes.Facts]). Containers that users run without root are programs of
// those users, and no containers here.
package container

import "strings"

// Kinds of runtimes.
const (
	Docker     = "docker"
	Podman     = "podman"
	Containerd = "containerd"
	// CRIO is known by its cgroups only.
	CRIO = "cri-o"
)

// Container is one container of this host.
type Container struct {
	// ID is what its runtime calls it.
	ID string
	// Kind is the kind of runtime, by the cgroup's name.
	Kind string
	// Namespace is containerd's.
	Namespace string
	// Cgroup is the path of the container's own cgroup; its processes are in
	// it or below.
	Cgroup string
}

// scopes are what runtimes call a container's unit under systemd, before
// "-<id>.scope".
var scopes = []struct{ prefix, kind, namespace string }{
	{"docker-", Docker, ""},
	{"libpod-", Podman, ""},
	{"cri-containerd-", Containerd, "k8s.io"},
	{"nerdctl-", Containerd, "default"},
	{"crio-", CRIO, ""},
}

// Of reads a cgroup's path, as /proc/PID/cgroup has it. ok is false if it is
// in no container that this host's root made.
func Of(cgroup string) (c Container, ok bool) {
	if !strings.HasPrefix(cgroup, "/") {
		return Container{}, false
	}
	parts := strings.Split(cgroup[1:], "/")
	if n, found := underSlices(parts); found {
		c, ok = ofScope(parts[n])
		c.Cgroup = "/" + strings.Join(parts[:n+1], "/")
	} else {
		var n int
		c, n = ofTree(parts)
		ok = n > 0
		c.Cgroup = "/" + strings.Join(parts[:n], "/")
	}
	if !ok {
		return Container{}, false
	}
	return c, true
}

// underSlices finds the first part below a chain of systemd's slices, each
// named after the one above; only init makes those.
func underSlices(parts []string) (n int, ok bool) {
	above := ""
	for n < len(parts) {
		name, slice := strings.CutSuffix(parts[n], ".slice")
		if !slice || name == "" || !strings.HasPrefix(name, above) {
			break
		}
		above, n = name+"-", n+1
	}
	return n, n > 0 && n < len(parts)
}

// ofScope reads "docker-<id>.scope".
func ofScope(part string) (Container, bool) {
	name, ok := strings.CutSuffix(part, ".scope")
	if !ok {
		return Container{}, false
	}
	for _, s := range scopes {
		if id, ok := strings.CutPrefix(name, s.prefix); ok && hex64(id) {
			return Container{ID: id, Kind: s.kind, Namespace: s.namespace}, true
		}
	}
	return Container{}, false
}

// ofTree reads what runtimes make without systemd, at the root of the hierarchy:
// /docker/<id>, /libpod_parent/libpod-<id>, /kubepods/[class/]pod<uid>/<id>,
// /<containerd namespace>/<id>. n is how many parts the container's path has.
func ofTree(parts []string) (c Container, n int) {
	if len(parts) < 2 {
		return Container{}, 0
	}
	last := parts[1]
	switch parts[0] {
	case "docker":
		if hex64(last) {
			return Container{ID: last, Kind: Docker}, 2
		}
	case "libpod_parent", "machine":
		if id, ok := strings.CutPrefix(last, "libpod-"); ok && hex64(id) {
			return Container{ID: id, Kind: Podman}, 2
		}
	case "default", "k8s.io":
		if containerdID(last) {
			return Container{ID: last, Kind: Containerd, Namespace: parts[0]}, 2
		}
	case "kubepods":
		return inPod(parts)
	}
	return Container{}, 0
}

func inPod(parts []string) (Container, int) {
	n := 1
	if parts[n] == "burstable" || parts[n] == "besteffort" {
		n++
	}
	if len(parts) < n+2 || !strings.HasPrefix(parts[n], "pod") {
		return Container{}, 0
	}
	id, crio := strings.CutPrefix(parts[n+1], "crio-")
	if !hex64(id) {
		return Container{}, 0
	}
	if crio {
		return Container{ID: id, Kind: CRIO}, n + 2
	}
	// The name tells no runtime; containerd is the one that has such names today.
	return Container{ID: id, Kind: Containerd, Namespace: "k8s.io"}, n + 2
}

// hex64 reports whether s is an id as Docker and its kin make them.
func hex64(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// containerdID reports whether s is an identifier as containerd takes them;
// who makes a container there chooses its id.
func containerdID(s string) bool {
	const alnum = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	return s != "" && len(s) <= 76 && strings.Trim(s, alnum+"._-") == "" && strings.ContainsAny(s[:1], alnum)
}
