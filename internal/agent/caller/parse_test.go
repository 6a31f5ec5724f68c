package caller

import (
	"slices"
	"strings"
	"testing"
)

func TestUnit(t *testing.T) {
	for _, tt := range []struct{ cgroup, want string }{
		{"/system.slice/shop.service", "shop.service"},
		{"/system.slice/shop.service/worker", "shop.service"},
		{"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"},
		{"/system.slice/a\\x2db.service", "a\\x2db.service"},
		{"/system.slice/_cgroup.service", "cgroup.service"}, // escaped by systemd
		{"/init.scope", "init.scope"},
		{"/shop.service", "shop.service"}, // Slice=-.slice
		{"/machine.slice/machine-web.scope/payload/system.slice/evil.service", "machine-web.scope"},
		{"/user.slice/user-1000.slice/session-2.scope", "session-2.scope"},

		// Attacks: below a delegated cgroup and a user's manager anybody makes names.
		{"/system.slice/shop.service/evil.service", "shop.service"},
		{"/system.slice/shop.service/system.slice/evil.service", "shop.service"},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/evil.service", "user@1000.service"},
		{"/system.slice/docker-0a.scope/system.slice/evil.service", "docker-0a.scope"},
		{"/docker/0a/system.slice/evil.service", ""},
		{"/libpod_parent/libpod-0a/evil.service", ""},
		{"/lxc.payload.x/system.slice/evil.service", ""},
		{"/system.slice/x.slice/evil.service", ""}, // a slice of init's is named after its parent
		{"/system.slice/system-.slice", ""},
		{"/../system.slice/evil.service", ""}, // outside the agent's cgroup namespace

		{"/", ""},
		{"", ""},
		{"system.slice/x.service", ""},
		{"/system.slice", ""},
		{"/system.slice/", ""},
		{"/system.slice/.service", ""},
		{"/system.slice/getty@.service", ""},
		{"/system.slice/@x.service", ""},
		{"/system.slice/x y.service", ""},
		{"/system.slice/x.timer", ""},
		{"/system.slice/" + strings.Repeat("x", 250) + ".service", ""},
	} {
		if got := unit(tt.cgroup); got != tt.want {
			t.Errorf("unit(%q) = %q, want %q", tt.cgroup, got, tt.want)
		}
	}
}

func FuzzUnit(f *testing.F) {
	f.Add("/user.slice/user-1000.slice/user@1000.service/app.slice/evil.service")
	f.Add("/system.slice/_x.service")
	f.Fuzz(func(t *testing.T, s string) {
		u := unit(s)
		if u == "" {
			return
		}
		if !strings.Contains(s, u) || !validUnit(u) {
			t.Errorf("unit(%q) = %q", s, u)
		}
		if got := unit(s + "/evil.service"); got != u {
			t.Errorf("unit(%q/evil.service) = %q, want %q", s, got, u)
		}
	})
}

func TestWhichCgroupCounts(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"0::/system.slice/a.service\n", "/system.slice/a.service"},
		{"9:name=systemd:/b\n8:pids:/c\n0::/a\n", "/a"},
		{"9:name=systemd:/b\n8:pids:/c\n0::/\n", "/b"},
		{"9:name=systemd:/\n8:pids:/c\n4:memory:/d\n0::/\n", "/c"},
		{"9:name=systemd:/\n8:pids:/\n4:memory:/d\n0::/\n", "/"}, // no other controller says where a process is
		{"8:pids:/c\n", "/c"},
		{"0::/a:b\n", "/a:b"},
		{"", ""},
	} {
		c, err := parseCgroups([]byte(tt.text))
		if got := c.path(); err != nil || got != tt.want {
			t.Errorf("cgroup of %q = %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
	if c, err := parseCgroups([]byte("0:\n")); err == nil {
		t.Errorf("a line without a path is read as %+v", c)
	}
}

func FuzzParseCgroups(f *testing.F) {
	f.Add([]byte("9:name=systemd:/b\n8:pids:/c\n0::/a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseCgroups(text)
		if err == nil && !strings.Contains(string(text), strings.TrimSuffix(c.path(), "/")) {
			t.Errorf("%q has the path %q", text, c.path())
		}
	})
}

func TestParseStart(t *testing.T) {
	fields := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20 21\n"
	for _, comm := range []string{"shop", "a b", "a) S 1 (b", "))"} { // whatever a program calls itself
		if got, err := parseStart([]byte("12 (" + comm + ")" + fields)); err != nil || got != 987654 {
			t.Errorf("start of %q = %d, %v", comm, got, err)
		}
	}
	for _, bad := range []string{"", "12 shop", "12 (shop) S 1 2", "12 (shop" + strings.ReplaceAll(fields, "987654", "-1") + ")"} {
		if got, err := parseStart([]byte(bad)); err == nil {
			t.Errorf("start of %q = %d", bad, got)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	f.Add([]byte("12 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 987654 20\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStart(b) })
}

func TestParseStatus(t *testing.T) {
	c, err := parseStatus([]byte("Name:\tshop\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nThreads:\t1\n"))
	if err != nil || c.uids != [4]uint32{1, 2, 3, 4} || c.gids != [4]uint32{5, 6, 7, 8} || !slices.Equal(c.groups, []uint32{9, 10}) {
		t.Errorf("parseStatus = %+v, %v", c, err)
	}
	for _, bad := range []string{"", "Uid:\t1\t2\t3\nGid:\t5\t6\t7\t8\nGroups:\t\n", "Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\tx\n", "Uid:\t1\t2\t3\t4\nGroups:\t\n"} {
		if c, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("parseStatus(%q) = %+v", bad, c)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStatus(b) })
}

func TestFindMount(t *testing.T) {
	const text = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n" +
		"41 22 0:38 / /mnt/a\\040b rw shared:7 - fuse.evil evil\\040-\\040ext4 rw\n" +
		"broken\n55 22 x:1 / /y rw - tmpfs t rw\n"
	m, ok := findMount([]byte(text), func(id string, _ mount) bool { return id == "41" })
	if !ok || m.fstype != "fuse.evil" || m.major != 0 || m.minor != 38 {
		t.Errorf("findMount = %+v, %v", m, ok)
	}
	if m, ok := findMount([]byte(text), func(id string, _ mount) bool { return id == "55" }); ok {
		t.Errorf("a line that is none is read as %+v", m)
	}
}

func FuzzFindMount(f *testing.F) {
	f.Add("41 22 0:38 / /mnt rw shared:7 - fuse.evil evil rw\n")
	f.Fuzz(func(t *testing.T, text string) {
		findMount([]byte(text), func(_ string, m mount) bool {
			if m.fstype == "" {
				t.Errorf("%q has a mount without a type", text)
			}
			return false
		})
	})
}

// A filesystem that a program serves may show one content to who executes a
// file and another to who reads it, and any times it likes.
func TestServedByUser(t *testing.T) {
	for _, tt := range []struct {
		major  uint32
		fstype string
		want   bool
	}{
		{254, "", false}, {0, "overlay", false}, {0, "btrfs", false}, {0, "tmpfs", false},
		{0, "fuse", true}, {0, "fuse.sshfs", true}, {0, "", true},
	} {
		e := &executable{fstype: tt.fstype}
		e.stat.Dev_major = tt.major
		if got := e.servedByUser(); got != tt.want {
			t.Errorf("major %d, type %q: %v, want %v", tt.major, tt.fstype, got, tt.want)
		}
	}
}

func TestParseDiag(t *testing.T) {
	if d, err := parseDiag(make([]byte, lenAnswer-1)); err == nil {
		t.Errorf("a short answer is read as %+v", d)
	}
}

func FuzzParseDiag(f *testing.F) {
	f.Add(make([]byte, lenAnswer))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseDiag(b) })
}
