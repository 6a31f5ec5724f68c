package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/agent"
	"github.com/innate-id/innate/internal/arm"
	"github.com/innate-id/innate/internal/audit"
	"github.com/innate-id/innate/internal/evidence"
	"github.com/innate-id/innate/internal/fleetapi"
	"github.com/innate-id/innate/internal/resource"
)

func accessCommand(f *flags) *cobra.Command {
	c := &cobra.Command{Use: "access", Short: "Who may do what, and why something is allowed or not"}
	c.AddCommand(accessCheck(f), accessWhoCan(f), accessWhatCan(f), accessExplain(f))
	return group(c)
}

// explained is what to explain.
type explained struct {
	managing
	pid                           int
	event, socket, door, workload string
	without                       string
	audience, identity            string
	selectors                     []string
	grade                         string
	interpreter                   bool
	since                         time.Duration
}

func accessExplain(f *flags) *cobra.Command {
	x := explained{managing: managing{flags: f}}
	c := x.bind(&cobra.Command{
		Use: "explain --pid N | --event ID | --without ID | RESOURCE --selector S...", Short: "Say which placement, caller rule or role decides, and why not the others",
		Long: `Say which placement and caller rule decide about a caller, and why not the others.

  --pid N        a process of this machine, as the agent sees it now, at each of its doors. Root may ask about
                 every process, who is not about its own
  --event ID     what was decided: an event's request or token id (innate audit tail --json), or "last"; and what
                 the rules say of that caller, and the roles of that operation, today
  --without ID   what would break if the role assignment with this ID went: who would lose what, considering what
                 others give; it stays
  RESOURCE       what the rules of a resource say of a caller with these selectors, who need not exist

It shows what decides where the caller is. What the identity may do at an API, innate access check says.`,
		Example:               "  innate access explain --pid $(pgrep -o shop)\n  innate access explain --event last\n  innate access explain app1 --selector systemd:id:shop.service --grade kernel",
		DisableFlagsInUseLine: true,
		Args:                  atMostOne("RESOURCE"),
		ValidArgsFunction:     completeNames(f),
		RunE: func(c *cobra.Command, args []string) error {
			given := 0
			for _, is := range []bool{x.pid != 0, x.event != "", x.without != "", len(args) > 0} {
				if is {
					given++
				}
			}
			if given != 1 {
				return usage(c, "one of --pid, --event, --without and RESOURCE was expected; there are %d", given)
			}
			if x.workload != "" && x.door == "" {
				x.door = agent.RunDoor
			}
			switch {
			case x.pid != 0:
				return x.process(c)
			case x.event != "":
				return x.recorded(c)
			case x.without != "":
				return x.goneWithout(c)
			}
			return x.supposed(c, args[0])
		},
	}, true)
	fl := c.Flags()
	fl.IntVar(&x.pid, "pid", 0, "explain this process")
	fl.StringVar(&x.event, "event", "", "explain the recorded event with this request or token id, or the \"last\" one about a token for a program")
	fl.StringVar(&x.without, "without", "", "explain what would break without the role assignment with this resource ID")
	fl.StringVar(&x.socket, "agent-socket", "", "control socket of innate-agent, on a host that it serves, instead of innate dev's (--pid)")
	fl.StringVar(&x.door, "door", "", "only this door of the agent (--pid)")
	fl.StringVar(&x.workload, "start-as", "", "the resource that the process would be started as: it comes in by the door \"run\" (--pid)")
	fl.StringVar(&x.audience, "resource", "https://vault.azure.net", "the API that a token is asked for")
	fl.StringVar(&x.identity, "identity", "", "the identity that is asked for, by its resource ID or client id (default: none is named)")
	fl.StringArrayVar(&x.selectors, "selector", nil, "what holds of the caller; may be repeated (RESOURCE)")
	fl.StringVar(&x.grade, "grade", "kernel", "how good the evidence is (RESOURCE)")
	fl.BoolVar(&x.interpreter, "interpreter", false, "the caller's executable is an interpreter (RESOURCE)")
	fl.DurationVar(&x.since, "since", 24*time.Hour, "how far back to look (--event)")
	completeSelectors(c)
	return c
}

// process asks the agent about a process.
func (x *explained) process(c *cobra.Command) error {
	socket := x.socket
	if socket == "" {
		in, _, err := x.instance()
		if err != nil {
			return err
		}
		socket = in.ControlSocket
		if x.workload != "" {
			if x.workload, err = in.Resolve(x.workload); err != nil {
				return err
			}
		}
	}
	q := url.Values{"pid": {strconv.Itoa(x.pid)}, "resource": {x.audience}}
	for k, v := range map[string]string{"door": x.door, "workload": x.workload, "identity": x.identity} {
		if v != "" {
			q.Set(k, v)
		}
	}
	var out agent.Explanation
	if err := askAgent(c.Context(), socket, "/explain?"+q.Encode(), &out); err != nil {
		return err
	}
	if x.asJSON {
		return printJSON(c.OutOrStdout(), out)
	}
	p := &prose{}
	p.line("process   %d %s", out.PID, word(out.Executable))
	if out.Interpreter {
		p.line("          an interpreter: its executable alone identifies no program")
	}
	for _, d := range out.Doors {
		p.door(d)
	}
	return p.print(c.OutOrStdout())
}

// askAgent reads an answer of the agent's control socket.
func askAgent(ctx context.Context, socket, path string, out any) error {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", socket)
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return fmt.Errorf("asking the agent: %w", err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return fmt.Errorf("asking the agent at %s: %w", socket, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("reading the agent's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e fleetapi.Error
		if json.Unmarshal(b, &e) != nil || e.Detail == "" {
			return fmt.Errorf("the agent answered %s", resp.Status)
		}
		return &refusal{e}
	}
	return json.Unmarshal(b, out)
}

// prose is an explanation for people. Words that others chose are quoted if
// they could be taken for ours.
type prose struct{ strings.Builder }

func (p *prose) line(format string, args ...any) { fmt.Fprintf(&p.Builder, format+"\n", args...) }

func (p *prose) print(w io.Writer) error {
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *prose) door(d agent.DoorExplanation) {
	p.line("\ndoor      %s", word(d.Door))
	p.evidence(d.Grade, d.Selectors)
	if d.Placement == "" {
		p.line("placement none: %s", d.Reason)
	} else {
		p.line("placement %s: the caller is %s", word(d.Placement), word(d.Resource))
	}
	p.others(d.OtherPlacements)
	if d.Hidden > 0 {
		p.line("          and %d that do not match (root is told which)", d.Hidden)
	}
	if d.Placement == "" {
		p.line("answer    refused")
		return
	}
	p.verdict(evidence.Verdict{Allowed: d.Allowed, Rule: d.Rule, Identity: d.Identity, Reason: d.Reason, Would: d.Would}, len(d.OtherRules))
	p.others(d.OtherRules)
}

func (p *prose) evidence(grade string, selectors []string) {
	p.line("evidence  grade %s", word(grade))
	for _, s := range selectors {
		p.line("          %s", word(s))
	}
}

// verdict says what the rules say; others is how many do not allow it.
func (p *prose) verdict(v evidence.Verdict, others int) {
	switch {
	case !v.Allowed:
		p.line("answer    refused: %s", v.Reason)
	case v.Identity != "":
		p.line("answer    allowed: the identity %s", word(v.Identity))
	default:
		p.line("answer    allowed: the identity that it names, else the default one")
	}
	if v.Would != "" {
		p.line("          rules in audit mode would refuse it: %s", v.Would)
	}
	switch {
	case v.Rule != "":
		p.line("rule      %s", word(v.Rule))
	case others == 0 && v.Allowed:
		p.line("rule      none on the resource: every caller that is placed as it may have every identity of it")
	case v.Allowed:
		p.line("rule      none is enforced")
	default:
		p.line("rule      none allows it")
	}
}

func (p *prose) others(all []agent.Why) {
	for _, o := range all {
		p.line("          not %s: %s", word(o.Name), o.Why)
	}
}

// judged is what the rules of a resource say today.
type judged struct {
	Resource string `json:"resource"`
	Allowed  bool   `json:"allowed"`
	Rule     string `json:"rule,omitempty"`
	Identity string `json:"identity,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Would    string `json:"would,omitempty"`
	// OtherRules are those that do not allow it, and why.
	OtherRules []agent.Why `json:"otherRules,omitempty"`
}

// judge holds a caller against the rules as the management API has them.
func (x *explained) judge(ctx context.Context, a *acting, on resource.ID, ev evidence.Evidence, want evidence.Want) (judged, error) {
	nodes, err := rulesOf(ctx, a, on)
	if err != nil {
		return judged{}, err
	}
	rules := make([]evidence.Rule, len(nodes))
	for i, n := range nodes {
		if rules[i], err = n.Properties.rule(n.Name); err != nil {
			return judged{}, fmt.Errorf("reading the rule %s: %w", n.Name, err)
		}
	}
	v := evidence.Decide(rules, ev, want)
	out := judged{Resource: on.String(), Allowed: v.Allowed, Rule: v.Rule, Identity: v.Identity, Reason: v.Reason, Would: v.Would}
	for _, m := range v.Misses {
		out.OtherRules = append(out.OtherRules, agent.Why{Name: m.Rule, Why: m.Why})
	}
	return out, nil
}

func (x *explained) want(audience string) evidence.Want {
	w := evidence.Want{Audience: audience, Named: x.identity != ""}
	if strings.HasPrefix(x.identity, "/") {
		w.Identity = x.identity
	}
	return w
}

func (p *prose) judged(j judged) {
	p.verdict(evidence.Verdict{Allowed: j.Allowed, Rule: j.Rule, Identity: j.Identity, Reason: j.Reason, Would: j.Would}, len(j.OtherRules))
	p.others(j.OtherRules)
}

// supposed explains a caller who need not exist.
func (x *explained) supposed(c *cobra.Command, name string) error {
	if err := checkSelectors(x.selectors); err != nil {
		return err
	}
	ev := evidence.Evidence{Interpreter: x.interpreter}
	for _, s := range x.selectors {
		ev.Selectors = append(ev.Selectors, evidence.Selector(s))
	}
	var err error
	if ev.Grade, err = evidence.ParseGrade(x.grade); err != nil {
		return err
	}
	return x.onResource(c, name, func(a *acting, on resource.ID) error {
		j, err := x.judge(c.Context(), a, on, ev, x.want(x.audience))
		if err != nil {
			return err
		}
		if x.asJSON {
			return printJSON(c.OutOrStdout(), j)
		}
		p := &prose{}
		p.line("resource  %s", j.Resource)
		p.evidence(x.grade, x.selectors)
		p.judged(j)
		return p.print(c.OutOrStdout())
	})
}

// recorded explains an event of the record.
func (x *explained) recorded(c *cobra.Command) error {
	a, err := x.open(c)
	if err != nil {
		return err
	}
	defer a.release()
	ev, err := x.find(c.Context(), a)
	if err != nil {
		return err
	}
	caller, on, now, err := x.today(c.Context(), a, ev)
	if err != nil {
		return err
	}
	roles, off := x.rolesToday(c.Context(), a, ev)
	if x.asJSON {
		return printJSON(c.OutOrStdout(), map[string]any{"event": ev, "today": now, "decision": roles})
	}
	p := &prose{}
	p.line("event     %s", eventLine(ev))
	if caller != nil {
		p.line("door      %s", word(caller.Door))
		var words []string
		for _, s := range caller.Selectors {
			words = append(words, string(s))
		}
		p.evidence(caller.Grade.String(), words)
	}
	p.line("decided   %s: %s", word(ev.Outcome), strconv.QuoteToASCII(cmp.Or(ev.Reason, "no reason is on record")))
	if now != nil {
		p.line("\nThe caller rules of %s today say of such a caller:", on.Name())
		p.judged(*now)
	}
	switch {
	case roles != nil:
		p.line("\nThe roles today say of such an operation:")
		p.decision(*roles)
	case off != nil:
		p.line("\nWhat the roles say of it today cannot be told: %v", off)
	}
	return p.print(c.OutOrStdout())
}

// rolesToday asks about the operation of an event as it would be decided now;
// nil of one that no role is about.
func (x *explained) rolesToday(ctx context.Context, a *acting, ev audit.Event) (*arm.DecisionView, error) {
	on, err := resource.Parse(ev.Target)
	own := strings.HasPrefix(ev.Action, "Innate.") && !strings.HasPrefix(ev.Action, "Innate.Fleet/") && !strings.HasPrefix(ev.Action, "Innate.Build/")
	if _, perr := uuid.Parse(ev.Principal); err != nil || perr != nil || own {
		return nil, nil
	}
	if strings.EqualFold(on.Type(), "Microsoft.Authorization/roleAssignments") {
		on = on.Scope() // where the right to write it is asked for
	}
	body, err := (&deciding{}).question(ev.Action)
	if err != nil {
		return nil, err
	}
	body["principalId"] = ev.Principal
	var out arm.DecisionView
	if err := a.decide(ctx, on, "check", body, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// managementAudience is the API that this command asks itself.
const managementAudience = "https://management.azure.com"

// find finds the event that is asked about, the latest one that fits.
func (x *explained) find(ctx context.Context, a *acting) (audit.Event, error) {
	q := url.Values{"api-version": {apiVersion}, "after": {time.Now().Add(-x.since).UTC().Format(time.RFC3339Nano)}}
	resp, err := a.arm(ctx, http.MethodGet, "/subscriptions/"+a.in.SubscriptionID+"/providers/Innate.Audit/events?"+q.Encode(), nil, nil)
	if err != nil {
		return audit.Event{}, err
	}
	defer resp.Body.Close()
	var found audit.Event
	for d := json.NewDecoder(resp.Body); ; {
		var ev audit.Event
		err := d.Decode(&ev)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return audit.Event{}, fmt.Errorf("reading the record: %w", err)
		}
		// This command's own tokens are of no interest to who asks for the last one.
		last := x.event == "last" && ev.Via != "" && strings.HasPrefix(ev.Action, "Innate.Token/") && !strings.HasPrefix(ev.Audience, managementAudience)
		if (last || ev.Request == x.event || ev.Token == x.event) && !ev.At.Before(found.At) {
			found = ev
		}
	}
	if found.Action == "" {
		return found, fmt.Errorf("the record of the last %s has no event %q: give a request or token id (innate audit tail --json), or a longer --since", x.since, x.event)
	}
	return found, nil
}

// today judges an event's caller by the rules as they are. caller is nil where
// the event has none that can be read, now where it was about no workload.
func (x *explained) today(ctx context.Context, a *acting, ev audit.Event) (caller *evidence.Evidence, on resource.ID, now *judged, err error) {
	if ev.Via == "" {
		return nil, on, nil, nil
	}
	e, err := evidence.ParseDescription(ev.Via)
	if err != nil {
		return nil, on, nil, nil // an older host's words: what is on record is shown as it is
	}
	if !strings.HasPrefix(ev.Action, "Innate.Token/") {
		return &e, on, nil, nil // a use of a token: the rules decided when it was asked for
	}
	on, err = resource.Parse(ev.Target)
	if err == nil && strings.EqualFold(on.Type(), "Innate.Fleet/hosts") {
		// What an agent refused by itself is on record for its host, and the
		// reason begins with whom the caller was taken for.
		who, _, _ := strings.Cut(ev.Reason, ": ")
		on, err = resource.Parse(who)
	}
	if err != nil {
		return &e, on, nil, nil // refused before it was anybody's
	}
	j, err := x.judge(ctx, a, on, e, x.want(ev.Audience))
	return &e, on, &j, err
}
