package agent_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

func explain(t *testing.T, socket, query string) (status int, ok agent.Explanation, fail fleetapi.Error) {
	t.Helper()
	resp, err := control(socket).Get("http://agent/explain?" + query)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	into := any(&ok)
	if resp.StatusCode != http.StatusOK {
		into = &fail
	}
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, ok, fail
}

func TestExplainSaysWhatADoorWould(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	uid := "unix:uid:" + strconv.Itoa(os.Getuid())
	theirs := fleetapi.Placement{Name: "p-theirs", Door: "main", Resource: shop, Selectors: []string{"systemd:id:shop.service"}}
	mine := onMain
	mine.Name, mine.Selectors = "p-mine", []string{uid}
	cp.Set([]fleetapi.Placement{onMain, theirs, mine, ours()}, []fleetapi.CallerRule{rule(anothers), rule(gives(shared))})
	cfg := config(t, cp)
	a := begin(t, cfg)
	status, got, fail := explain(t, cfg.ControlSocket, fmt.Sprint("pid=", os.Getpid(), "&resource="+url.QueryEscape(vault)))
	if status != http.StatusOK || len(got.Doors) != 2 {
		t.Fatalf("explain = %d %+v %+v", status, got, fail)
	}
	if exe, err := os.Executable(); err != nil || got.Executable != exe || got.PID != os.Getpid() {
		t.Errorf("explained %d %s, want this process, %s (%v)", got.PID, got.Executable, exe, err)
	}
	d := got.Doors[0]
	if d.Door != "main" || d.Placement != "p-mine" || d.Resource != web1 || !d.Allowed || d.Rule != "ours" || d.Identity != shared || d.Grade != "after-the-fact" ||
		!strings.Contains(strings.Join(d.Selectors, " "), uid) {
		t.Errorf("door main = %+v", d)
	}
	var others []string
	for _, o := range append(d.OtherPlacements, d.OtherRules...) {
		others = append(others, o.Name+": "+o.Why)
	}
	want := []string{"p-web1: it matches too, and p-mine counts before it", "anothers: the caller is not unix:path:/usr/bin/another"}
	if os.Getuid() == 0 {
		want = append(want[:1], "p-theirs: the caller is not systemd:id:shop.service", want[len(want)-1])
	} else if d.Hidden != 1 {
		t.Errorf("%d placements are hidden from who is not root, want 1", d.Hidden)
	}
	if strings.Join(others, "\n") != strings.Join(want, "\n") {
		t.Errorf("the others:\n%s\nwant\n%s", strings.Join(others, "\n"), strings.Join(want, "\n"))
	}
	if d := got.Doors[1]; d.Door != agent.RunDoor || d.Placement != "" || len(d.OtherPlacements) != 1 || !strings.Contains(d.OtherPlacements[0].Why, "may be "+shop) {
		t.Errorf("door run = %+v, want what a start may be", d)
	}
	_, got2, _ := explain(t, cfg.ControlSocket, fmt.Sprint("pid=", os.Getpid(), "&door=run&workload="+url.QueryEscape(shop)))
	if d := got2.Doors[0]; d.Grade != "secret" || d.Placement != "p-shop" || !d.Allowed {
		t.Errorf("door run, as shop = %+v", d)
	}
	// And the door does so.
	wantToken(t, imds(t, a, ""), "token-1")
	if q := cp.Asked()[0]; q.Placement != d.Placement || q.ResourceID != d.Identity {
		t.Errorf("the door asked for %+v, and was explained as %+v", q, d)
	}
	// Another identity by name, one door.
	_, got, _ = explain(t, cfg.ControlSocket, fmt.Sprint("pid=", os.Getpid(), "&door=main&identity="+url.QueryEscape(web1)))
	if len(got.Doors) != 1 || got.Doors[0].Allowed || !strings.Contains(got.Doors[0].Reason, "no caller rule") {
		t.Errorf("explained for another identity: %+v", got)
	}
	wantRefused(t, imds(t, a, "&msi_res_id="+web1), "no caller rule")
	if served, _, refused := cp.Recorded(""); served+refused > 1 {
		t.Errorf("explaining is on record: %d served, %d refused", served, refused)
	}
}

func TestExplainWithoutPlacement(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	tie := onMain
	tie.Name, tie.Resource = "p-tie", shop
	cp.Place(onMain, tie)
	cfg := config(t, cp)
	begin(t, cfg)
	_, got, _ := explain(t, cfg.ControlSocket, fmt.Sprint("pid=", os.Getpid()))
	if d := got.Doors[0]; d.Allowed || !strings.Contains(d.Reason, "equally well") || len(d.OtherPlacements) != 2 || !strings.Contains(d.OtherPlacements[0].Why, "names another resource") {
		t.Errorf("door with a tie = %+v", d)
	}
	if d := got.Doors[1]; d.Allowed || !strings.Contains(d.Reason, "says which resource") || len(d.OtherPlacements) != 0 {
		t.Errorf("door without placements = %+v", d)
	}
}

// A process of the host is behind no virtual machine's interface, whatever is
// placed there, and in no container that it is not in.
func TestExplainKnowsWhoComesInByADoor(t *testing.T) {
	needRoot(t)
	t.Parallel()
	inside := exec.Command("unshare", "--net", "sleep", "60")
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inside.Process.Kill(); _ = inside.Wait() })
	namespace := fmt.Sprintf("/proc/%d/ns/net", inside.Process.Pid)
	agenttest.Eventually(t, "the process is in a namespace of its own", func() bool {
		its, err := os.Readlink(namespace)
		ours, oerr := os.Readlink("/proc/self/ns/net")
		return err == nil && oerr == nil && its != ours
	})
	cfg := config(t, agenttest.New(t))
	cfg.Doors = append(cfg.Doors, agent.DoorConfig{Name: "shop", Kind: agent.KindNamespace, Namespace: namespace, Container: "shop"},
		agent.DoorConfig{Name: "vm", Kind: agent.KindInterface, Interface: "tap0"})
	a, err := agent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if from, can := agent.Reach(a, inside.Process.Pid, "shop"); !can || len(from.Selectors) != 1 || from.Selectors[0] != "container:name:shop" {
		t.Errorf("the door of a namespace that the process is in: %+v, %v", from, can)
	}
	for _, tt := range []struct {
		pid  int
		door string
		want bool
	}{
		{os.Getpid(), "shop", false}, {os.Getpid(), "vm", false}, {inside.Process.Pid, "vm", false}, {os.Getpid(), "main", true}, {os.Getpid(), "run", true},
	} {
		if _, can := agent.Reach(a, tt.pid, tt.door); can != tt.want {
			t.Errorf("process %d comes in by %s = %v, want %v", tt.pid, tt.door, can, tt.want)
		}
	}
}

func TestExplainRefusesBadQuestions(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cfg := config(t, cp)
	begin(t, cfg)
	for query, says := range map[string]string{
		"":                         "process id",
		"pid=0":                    "process id",
		"pid=-1":                   "process id",
		"pid=1%2f..":               "process id",
		"pid=self":                 "process id",
		"pid=1&pid=2":              "each once",
		"pid=1&who=me":             `"who"`,
		"pid=1;":                   "does not parse",
		"pid=1&door=none":          "there are: main, run",
		"pid=" + goneProcess(t):    "",
		"pid=4194305":              "", // above what any kernel gives
		"pid=99999999999999999999": "process id",
	} {
		if status, _, fail := explain(t, cfg.ControlSocket, query); status == http.StatusOK || !strings.Contains(fail.Detail, says) {
			t.Errorf("explain?%s = %d %+v, want a refusal with %q", query, status, fail, says)
		}
	}
}

// goneProcess is a process that has ended.
func goneProcess(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(cmd.Process.Pid)
}

// Who is not root may ask about its own processes; whether another's is there,
// and what it is, is not said.
func TestExplainIsForRootAndTheOwner(t *testing.T) {
	needRoot(t)
	t.Parallel()
	cp := agenttest.New(t)
	theirs := onMain
	theirs.Selectors = []string{"unix:path:/usr/bin/secret-project"}
	cp.Place(theirs)
	cfg := config(t, cp)
	cfg.ControlMode = 0o666
	begin(t, cfg)
	if err := os.Chmod(filepath.Dir(cfg.ControlSocket), 0o755); err != nil { // the test's folder is root's
		t.Fatal(err)
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = nobody
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })
	as := func(pid string) string {
		cmd := exec.Command("curl", "-s", "--unix-socket", cfg.ControlSocket, "http://agent/explain?pid="+pid)
		cmd.SysProcAttr = nobody
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("curl: %v %s", err, out)
		}
		return string(out)
	}
	if got := as(strconv.Itoa(sleep.Process.Pid)); !strings.Contains(got, "unix:uid:65534") || !strings.Contains(got, `"hidden":1`) || strings.Contains(got, "secret-project") {
		t.Errorf("its own process explained: %s", got)
	}
	mine, gone := as(strconv.Itoa(os.Getpid())), as(goneProcess(t))
	if !strings.Contains(mine, `"kind":"denied"`) || strings.Contains(mine, "unix:uid:0") {
		t.Errorf("root's process explained to another: %s", mine)
	}
	digits := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, s)
	}
	if digits(mine) != digits(gone) {
		t.Errorf("a process that is there and one that is not are told apart:\n%s\n%s", mine, gone)
	}
	if status, got, fail := explain(t, cfg.ControlSocket, "pid="+strconv.Itoa(sleep.Process.Pid)); status != http.StatusOK || len(got.Doors[0].OtherPlacements) != 1 {
		t.Errorf("explained to root = %d %+v %+v", status, got, fail)
	}
}
