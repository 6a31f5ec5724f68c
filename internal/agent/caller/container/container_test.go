package container

import (
	"strings"
	"testing"
)

var (
	a = strings.Repeat("a", 64)
	b = strings.Repeat("b", 64)
)

func TestOf(t *testing.T) {
	for _, tt := range []struct {
		cgroup string
		want   Container // Cgroup "" means none
	}{
		{"/system.slice/docker-" + a + ".scope", Container{a, Docker, "", "/system.slice/docker-" + a + ".scope"}},
		{"/docker/" + a, Container{a, Docker, "", "/docker/" + a}},
		{"/machine.slice/libpod-" + a + ".scope/container", Container{a, Podman, "", "/machine.slice/libpod-" + a + ".scope"}},
		{"/libpod_parent/libpod-" + a, Container{a, Podman, "", "/libpod_parent/libpod-" + a}},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-" + a + ".scope",
			Container{a, Containerd, "k8s.io", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-" + a + ".scope"}},
		{"/kubepods.slice/kubepods-pod1_2.slice/crio-" + a + ".scope", Container{a, CRIO, "", "/kubepods.slice/kubepods-pod1_2.slice/crio-" + a + ".scope"}},
		{"/kubepods/besteffort/pod1-2/" + a, Container{a, Containerd, "k8s.io", "/kubepods/besteffort/pod1-2/" + a}},
		{"/kubepods/pod1-2/" + a + "/x", Container{a, Containerd, "k8s.io", "/kubepods/pod1-2/" + a}},
		{"/kubepods/pod1-2/crio-" + a, Container{a, CRIO, "", "/kubepods/pod1-2/crio-" + a}},
		{"/default/web1", Container{"web1", Containerd, "default", "/default/web1"}},
		{"/system.slice/nerdctl-" + a + ".scope", Container{a, Containerd, "default", "/system.slice/nerdctl-" + a + ".scope"}},

		// Attacks: only the outermost part that a runtime of the host made counts.
		{"/docker/" + a + "/docker/" + b, Container{a, Docker, "", "/docker/" + a}},
		{"/system.slice/docker-" + a + ".scope/system.slice/docker-" + b + ".scope", Container{a, Docker, "", "/system.slice/docker-" + a + ".scope"}},
		// A user's manager makes what it likes below itself.
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + b + ".scope", Container{}},
		{"/user.slice/user-1000.slice/user@1000.service/docker/" + b, Container{}},
		// So does a service with a delegated cgroup, or another kind of container.
		{"/system.slice/evil.service/docker-" + b + ".scope", Container{}},
		{"/lxc.payload.x/docker/" + b, Container{}},
		{"/system.slice/x.service/kubepods/pod1/" + b, Container{}},
		// A slice is named after the one that it is in.
		{"/system.slice/docker.slice/docker-" + b + ".scope", Container{}},
		// Beyond the cgroup namespace of the agent nothing is known.
		{"/../docker/" + b, Container{}},

		{"/docker/" + a[1:], Container{}},
		{"/docker/" + strings.ToUpper(a), Container{}},
		{"/docker/buildkit/" + a, Container{}},
		{"/docker", Container{}},
		{"/system.slice/docker-" + a + ".service", Container{}},
		{"/system.slice/docker.service", Container{}},
		{"/kubepods/burstable", Container{}},
		{"/kubepods/besteffort/pod1", Container{}},
		{"/kubepods/x/" + a, Container{}},
		{"/default/-x", Container{}},
		{"/default/", Container{}},
		{"/.slice/docker-" + a + ".scope", Container{}},
		{"/", Container{}},
		{"", Container{}},
		{"docker/" + a, Container{}},
	} {
		got, ok := Of(tt.cgroup)
		if got != tt.want || ok != (tt.want.Cgroup != "") {
			t.Errorf("Of(%q) = %+v, %v, want %+v", tt.cgroup, got, ok, tt.want)
		}
	}
}

func FuzzOf(f *testing.F) {
	f.Add("/system.slice/docker-" + a + ".scope/x")
	f.Add("/kubepods/besteffort/pod1-2/" + a)
	f.Add("/default/web1")
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := Of(s)
		if !ok {
			if c != (Container{}) {
				t.Errorf("Of(%q) = %+v, false", s, c)
			}
			return
		}
		if s != c.Cgroup && !strings.HasPrefix(s, c.Cgroup+"/") || c.ID == "" || c.Kind == "" {
			t.Errorf("Of(%q) = %+v, which is not part of it", s, c)
		}
		// What is made inside changes nothing.
		if again, ok := Of(s + "/docker/" + b); !ok || again != c {
			t.Errorf("Of(%q/docker/b) = %+v, want %+v", s, again, c)
		}
	})
}
