package agent_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/innate-id/innate/internal/agent/agenttest"
	"github.com/innate-id/innate/internal/fleetapi"
)

// What was decided for a connection is kept for its next requests, and ends
// with the placements and rules that it was decided by: each of these answers
// is asked for over one connection, and twice, so that the second is from what
// was kept.
func TestKeptDecisionEndsWithItsRules(t *testing.T) {
	t.Parallel()
	const other = web1 + "-other"
	cp := agenttest.New(t)
	var named atomic.Value // whose the token is
	named.Store(web1)
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		tok.AccessToken, tok.Identity = r.Workload+" "+r.Audience, named.Load().(string)
		return tok, nil
	})
	cp.Describe(fleetapi.Instance{ID: web1, Type: "Microsoft.Compute/virtualMachines", Name: "web1", UID: "u1"})
	cp.Describe(fleetapi.Instance{ID: other, Type: "Microsoft.Compute/virtualMachines", Name: "web1-other", UID: "u2"})
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	conn, err := net.Dial("tcp", a.DoorAddr("main"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	read := bufio.NewReader(conn)
	const itself = "" // asks what the caller is
	ask := func(audience string) string {
		t.Helper()
		path := "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=" + audience
		if audience == itself {
			path = "/metadata/instance?api-version=2021-02-01"
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nMetadata: true\r\n\r\n", path)
		resp, err := http.ReadResponse(read, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body struct {
			Token   string `json:"access_token"`
			Compute struct {
				Name string `json:"name"`
			} `json:"compute"`
		}
		if text, err := io.ReadAll(resp.Body); err != nil || json.Unmarshal(text, &body) != nil {
			t.Fatalf("answer %d %s, %v", resp.StatusCode, text, err)
		}
		return fmt.Sprint(resp.StatusCode, " ", body.Token+body.Compute.Name)
	}
	want := func(when, audience, answer string) {
		t.Helper()
		for range 2 {
			if got := ask(audience); got != answer {
				t.Errorf("%s: %s for %s, want %s", when, got, audience, answer)
			}
		}
	}
	want("at first", vault, "200 "+web1+" "+vault)
	want("at first", itself, "200 web1")
	want("of another audience", "api://b", "200 "+web1+" api://b")
	want("of the first again", vault, "200 "+web1+" "+vault)

	synced(t, a, cp.Rule(rule(audience("api://b"))))
	want("with a rule for the other audience", vault, "403 ")
	want("with a rule for the other audience", "api://b", "200 "+web1+" api://b")

	synced(t, a, cp.Place(fleetapi.Placement{Name: onMain.Name, Door: "main", Resource: other}))
	want("moved to a resource without rules", itself, "200 web1-other")
	want("moved to a resource without rules", vault, "200 "+other+" "+vault)

	synced(t, a, cp.Rule(fleetapi.CallerRule{Resource: other, Name: "strict", Selectors: []string{"unix:uid:4294967"}, Mode: fleetapi.ModeAudit}))
	want("with a rule in audit mode", vault, "200 "+other+" "+vault)
	agenttest.Eventually(t, "both answers were shipped with what the rule would have done", func() bool { return cp.Would("no caller rule") == 2 })

	synced(t, a, cp.Rule())
	want("without it", vault, "200 "+other+" "+vault)

	// One answer and the next can be two identities' by the same rules.
	synced(t, a, cp.Rule(fleetapi.CallerRule{Resource: other, Name: "one", Selectors: []string{"unix:uid:" + strconv.Itoa(os.Getuid())}, Identity: web1, Mode: fleetapi.ModeEnforce}))
	const byClient = vault + "&client_id=6f1e6a3c-0000-4000-8000-000000000002"
	want("of the rule's identity", byClient, "200 "+other+" "+vault)
	named.Store(shared)
	synced(t, a, cp.Push(fleetapi.Change{Resources: []string{other}}))
	want("of another identity", byClient, "403 ")

	synced(t, a, cp.Rule())
	synced(t, a, cp.Place())
	want("with no placement", vault, "403 ")
}

// A right that is taken away while an answer is made is not in it, also where
// the same was decided for the same connection before.
func TestRightTakenAwayWhileTheAnswerIsMade(t *testing.T) {
	t.Parallel()
	cp := agenttest.New(t)
	cp.Place(onMain)
	a := begin(t, config(t, cp))
	const anew = "&bypass_cache=true"
	for range 3 {
		if r := imds(t, a, anew); r.Status != 200 {
			t.Fatalf("answer = %d %s", r.Status, r.Body)
		}
	}
	asked, taken := make(chan bool), make(chan bool)
	cp.Decide(func(r fleetapi.TokenRequest) (fleetapi.TokenResponse, error) {
		tok := cp.Mint(r)
		asked <- true
		<-taken
		return tok, nil
	})
	req := request(t, "http://"+a.DoorAddr("main")+"/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault+anew, "Metadata", "true")
	answer := make(chan string, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		answer <- fmt.Sprint(resp.StatusCode, " ", string(text), " ", err)
	}()
	<-asked
	synced(t, a, cp.Rule(rule(anothers)))
	taken <- true
	if got := <-answer; !strings.HasPrefix(got, "403 ") || !strings.Contains(got, "no caller rule") {
		t.Errorf("the answer that was on its way = %s, want it refused", got)
	}
}
