package tokens_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/problem"
)

// smallDisk mounts a disk of 64 KiB; it goes with the test.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		if slices.Contains(strings.Split(os.Getenv("INNATE_SKIP"), ","), "root") {
			t.Skip("INNATE_SKIP says to go without root")
		}
		t.Fatal("mounting a disk takes root: run the tests as root, or set INNATE_SKIP=root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Fatal("mounting a disk:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error("unmounting a disk:", err)
		}
	})
	return dir
}

// TestFullDiskRefusesNewCallers: where the disk is full nobody new is answered,
// those on record are counted, and once there is room all of them are there,
// each once and none in part.
func TestFullDiskRefusesNewCallers(t *testing.T) {
	dir := smallDisk(t)
	j := journal(t, dir, 1<<20)
	served(t, j, "known", at)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	var full error
	var on []string
	for n := 0; full == nil && n < 10000; n++ {
		who := fmt.Sprintf("caller-%d", n)
		if full = j.Served(fleetapi.Served{At: at, Caller: who}); full == nil {
			on = append(on, who)
		}
	}
	if !problem.Is(full, problem.Unavailable) || !strings.Contains(full.Error(), "cannot write its record") {
		t.Fatalf("recording on a full disk = %v, want unavailable and the reason", full)
	}
	for range 50 {
		served(t, j, "known", at.Add(time.Minute))
		if err := j.Served(fleetapi.Served{At: at, Caller: "somebody new"}); !problem.Is(err, problem.Unavailable) {
			t.Fatalf("a new caller on a full disk: %v, want unavailable", err)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	served(t, j, "after", at)
	got := map[string]int{}
	for _, r := range ship(t, j) {
		for _, s := range r.Served {
			got[s.Caller] += int(s.Count)
		}
	}
	want := map[string]int{"known": 51, "after": 1}
	for _, who := range on {
		want[who] = 1
	}
	for who, n := range want {
		if got[who] != n {
			t.Errorf("%s is on record %d times, want %d", who, got[who], n)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d callers are on record, want %d", len(got), len(want))
	}
}
