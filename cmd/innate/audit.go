package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/innate-id/innate/internal/audit"
)

func auditCommand(f *flags) *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Read the record of every decision"}
	c.AddCommand(auditTail(f))
	return group(c)
}

func auditTail(f *flags) *cobra.Command {
	var as string
	var asJSON, noFollow bool
	var since time.Duration
	c := &cobra.Command{
		Use:   "tail",
		Short: "Follow the record: one line for every decision",
		Long: `Follow the record: one line for every decision, allowed or not, as it is committed. It reads through the
management API, and so needs the right to (ops has it).`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a, err := actAs(c.Context(), f, as, "ops", "")
			if err != nil {
				return err
			}
			defer a.release()
			if a.in == nil {
				return errors.New("innate dev is not running here")
			}
			q := url.Values{"api-version": {"2026-01-01"}, "after": {time.Now().Add(-since).UTC().Format(time.RFC3339Nano)}}
			if !noFollow {
				q.Set("follow", "true")
			}
			resp, err := a.arm(c.Context(), http.MethodGet, "/subscriptions/"+a.in.SubscriptionID+"/providers/Innate.Audit/events?"+q.Encode(), nil, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			err = printEvents(c.OutOrStdout(), resp.Body, asJSON)
			if c.Context().Err() != nil {
				return nil // interrupted: that is how a tail ends
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print each event as a JSON object")
	c.Flags().BoolVar(&noFollow, "no-follow", false, "end after what is on record now")
	c.Flags().DurationVar(&since, "since", 10*time.Minute, "begin this long ago")
	asFlag(c, f, &as, "ops")
	return c
}

func printEvents(w io.Writer, r io.Reader, asJSON bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if !asJSON {
			var ev audit.Event
			if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
				return fmt.Errorf("reading an event: %w", err)
			}
			line = eventLine(ev)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("following the record: %w", err)
	}
	return nil
}

// eventLine says an event in one line, for people. What came from a client is
// quoted where it has anything but plain characters: a record must not move
// the cursor.
func eventLine(ev audit.Event) string {
	who := ev.Name
	if who == "" {
		who = ev.Principal
	}
	if who == "" {
		who = "nobody"
	}
	b := fmt.Sprintf("%s %-7s %s %s on %s", ev.At.Local().Format("15:04:05.000"), ev.Outcome, plain(who), plain(shortAction(ev.Action)), plain(shortTarget(ev.Target)))
	for _, x := range []struct{ name, v string }{{"for", ev.Audience}, {"host", ev.Host}, {"via", ev.Via}, {"because", ev.Reason}} {
		if x.v != "" {
			b += " " + x.name + " " + plain(x.v)
		}
	}
	if ev.Count > 1 {
		b += fmt.Sprintf(" (%d times)", ev.Count)
	}
	return b
}

func shortAction(s string) string { return strings.TrimSuffix(s, "/action") }

// shortTarget leaves out what is the same on every line.
func shortTarget(s string) string {
	if _, rest, ok := strings.Cut(s, "/providers/"); ok {
		return rest
	}
	return s
}

func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x202e }) {
		return fmt.Sprintf("%q", s)
	}
	return s
}
