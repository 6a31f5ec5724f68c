package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

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
				return errNowhere
			}
			out := &printer{w: c.OutOrStdout(), asJSON: asJSON, terminal: isTerminal(c.OutOrStdout()), keep: keepLines}
			err = a.tail(c.Context(), out, time.Now().Add(-since), !noFollow)
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

const (
	// again is how long a follower waits before it asks anew.
	again = time.Second
	// overlap is how far the next answer goes back behind the end of the last
	// one: replicas' clocks differ, and a commit takes a while.
	overlap = 30 * time.Second
	// keepLines bounds what is kept to know repeats by.
	keepLines = 100_000
)

// tail prints the record from a time on. An answer that is followed ends with
// the server's limit: then it asks anew, with a token of then.
func (a *acting) tail(ctx context.Context, out *printer, from time.Time, follow bool) error {
	for {
		q := url.Values{"api-version": {"2026-01-01"}, "after": {from.UTC().Format(time.RFC3339Nano)}}
		if follow {
			q.Set("follow", "true")
		}
		resp, err := a.arm(ctx, http.MethodGet, "/subscriptions/"+a.in.SubscriptionID+"/providers/Innate.Audit/events?"+q.Encode(), nil, nil)
		if err != nil {
			return err
		}
		opened := time.Now()
		err = out.print(resp.Body)
		_ = resp.Body.Close() // it was read to its end, or err says why not
		if err != nil || !follow {
			return err
		}
		// What was committed until now was in the answer. By the server's
		// clock: the times in events may be those of hosts.
		began, err := http.ParseTime(resp.Header.Get("Date"))
		if err != nil {
			began = opened
		}
		from = began.Add(time.Since(opened) - overlap)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// printer prints the events of one answer after the other, each once although
// the answers overlap.
type printer struct {
	w io.Writer
	// asJSON prints events as they come; with terminal in ASCII, because a
	// terminal obeys what JSON need not escape.
	asJSON, terminal bool
	// keep is how many of the last lines are known again; 0 means all.
	keep int
	// had counts the last lines by their hash, which order has as they came:
	// two events may be alike.
	had   map[[sha256.Size]byte]int
	order [][sha256.Size]byte
}

func (p *printer) print(r io.Reader) error {
	before := maps.Clone(p.had)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		sum := sha256.Sum256(lines.Bytes())
		if before[sum] > 0 {
			before[sum]--
			continue
		}
		p.remember(sum)
		line, err := p.line(lines.Bytes())
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(p.w, line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("following the record: %w", err)
	}
	return nil
}

func (p *printer) remember(sum [sha256.Size]byte) {
	if p.had == nil {
		p.had = map[[sha256.Size]byte]int{}
	}
	p.had[sum]++
	p.order = append(p.order, sum)
	if p.keep == 0 || len(p.order) <= p.keep {
		return
	}
	oldest := p.order[0]
	p.order = p.order[1:]
	if p.had[oldest]--; p.had[oldest] == 0 {
		delete(p.had, oldest)
	}
}

func (p *printer) line(raw []byte) (string, error) {
	if p.asJSON {
		if p.terminal {
			return asciiJSON(string(raw)), nil
		}
		return string(raw), nil
	}
	var ev audit.Event
	if err := json.Unmarshal(raw, &ev); err != nil {
		return "", fmt.Errorf("reading an event: %w", err)
	}
	return eventLine(ev), nil
}

// asciiJSON escapes all that is not plain ASCII in a line of JSON.
func asciiJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= ' ' && r <= '~' {
			b.WriteRune(r)
			continue
		}
		for _, u := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, u)
		}
	}
	return b.String()
}

// eventLine says an event in one line, for people:
//
//	15:04:05.000 allowed WHO ACTION on TARGET for=AUDIENCE host=HOST via="..." because="..."
//
// Any of its words may come from a host or a client. What is not one plain word
// is quoted, so that no word looks like another field, nor moves the cursor.
func eventLine(ev audit.Event) string {
	who := ev.Name
	if who == "" {
		who = ev.Principal
	}
	if who == "" {
		who = "nobody"
	}
	b := fmt.Sprintf("%s %-7s %s %s on %s", ev.At.Local().Format("15:04:05.000"), word(ev.Outcome), word(who), word(shortAction(ev.Action)), word(shortTarget(ev.Target)))
	for _, x := range []struct{ name, v, text string }{
		{"for", ev.Audience, word(ev.Audience)}, {"host", ev.Host, word(ev.Host)},
		{"via", ev.Via, strconv.QuoteToASCII(ev.Via)}, {"because", ev.Reason, strconv.QuoteToASCII(ev.Reason)},
	} {
		if x.v != "" {
			b += " " + x.name + "=" + x.text
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

// word returns s as one word of a line: as it is, or quoted.
func word(s string) string {
	if s == "" || !utf8.ValidString(s) || strings.ContainsFunc(s, notPlain) {
		return strconv.QuoteToASCII(s)
	}
	return s
}

// notPlain reports whether a rune could end a word, look as if it did, or show
// as nothing.
func notPlain(r rune) bool {
	switch r {
	case '"', '=', '\\', '\u2800': // the last is a blank that is a symbol to Unicode
		return true
	}
	return !unicode.IsGraphic(r) || unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) || unicode.Is(unicode.Cf, r) ||
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) // blank letters: the Hangul fillers
}
