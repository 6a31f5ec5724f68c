package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// What makes load, and what it is held against, are processes of their own, as
// the programs around an agent are: this test's binary, started again with a
// role in its environment.
const roleVar = "INNATE_BENCH_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "":
		os.Exit(m.Run())
	case "empty":
		os.Exit(serve(empty))
	case "equal":
		os.Exit(serve(equal))
	case "load":
		os.Exit(makeLoad())
	}
}

// role is this binary as one of its roles.
func role(name string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// equal is an empty handler whose answers are as long as a token's, with as
// many headers.
var equal = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h["Server"], h["X-Ms-Request-Id"] = []string{"IMDS/150.870.65.1854"}, []string{"6f1e6a3c-0000-4000-8000-000000000002"}
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = []string{"application/json; charset=utf-8"}, []string{"no-store"}, []string{"nosniff"}
	h["Content-Length"] = []string{strconv.Itoa(len(longAnswer))}
	_, _ = w.Write(longAnswer)
})

var longAnswer = bytes.Repeat([]byte("x"), 1700)

// serve serves h on loopback until its input ends.
func serve(h http.Handler) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr())
	go func() { _ = http.Serve(l, h) }()
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// load is what the generator is asked for.
type load struct {
	// Addr is where to connect, Path and Header what to ask for.
	Addr, Path, Header string
	// Connections ask, each again as soon as it is answered, or Every so often.
	Connections int
	Every       time.Duration
	For         time.Duration
	// Anew makes a new connection for each request.
	Anew bool
	// PID is whose time on the processors is measured.
	PID int
}

// outcome is what came of a load.
type outcome struct {
	Answers int
	// Refused are answers with another status than 200.
	Refused       int
	Seconds       float64
	CPU           time.Duration
	P50, P99, Max time.Duration
}

func (o outcome) rate() float64 { return float64(o.Answers) / o.Seconds }

// run has a process make the load.
func (l load) run(b *testing.B) outcome {
	b.Helper()
	wait := l.start(b)
	return wait()
}

// start has a process make the load beside what follows.
func (l load) start(b *testing.B) (wait func() outcome) {
	b.Helper()
	in, err := json.Marshal(l)
	if err != nil {
		b.Fatal(err)
	}
	cmd := role("load")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(in), &out
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return func() outcome {
		b.Helper()
		if err := cmd.Wait(); err != nil {
			b.Fatalf("making load: %v", err)
		}
		var o outcome
		if err := json.Unmarshal(out.Bytes(), &o); err != nil {
			b.Fatal(err)
		}
		return o
	}
}

// makeLoad is the generator: it reads a load, and writes its outcome.
func makeLoad() int {
	var l load
	if err := json.NewDecoder(os.Stdin).Decode(&l); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	o, err := l.make()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = json.NewEncoder(os.Stdout).Encode(o)
	return 0
}

func (l load) make() (outcome, error) {
	request := []byte("GET " + l.Path + " HTTP/1.1\r\nHost: " + l.Addr + "\r\n" + l.Header + "\r\n\r\n")
	clients := make([]*client, l.Connections)
	for i := range clients {
		clients[i] = &client{addr: l.Addr, request: request}
		// Whoever is there from the beginning has connected, and was known.
		if _, err := clients[i].ask(); err != nil {
			return outcome{}, err
		}
	}
	before, err := cpu(l.PID)
	if err != nil {
		return outcome{}, err
	}
	begin := time.Now()
	end := begin.Add(l.For)
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() {
			time.Sleep(l.Every * time.Duration(i) / time.Duration(len(clients)))
			c.work(end, l.Every, l.Anew)
		})
	}
	all.Wait()
	o := outcome{Seconds: time.Since(begin).Seconds()}
	after, err := cpu(l.PID)
	if err != nil {
		return outcome{}, err
	}
	o.CPU = after - before
	var took []time.Duration
	for _, c := range clients {
		if c.err != nil {
			return o, c.err
		}
		took = append(took, c.took...)
		o.Refused += c.refused
		c.conn.Close()
	}
	if len(took) == 0 {
		return o, errors.New("nothing was answered")
	}
	slices.Sort(took)
	o.Answers, o.P50, o.P99, o.Max = len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	return o, nil
}

// client is one connection at a time.
type client struct {
	addr    string
	request []byte
	conn    net.Conn
	read    *bufio.Reader
	took    []time.Duration
	refused int
	err     error
	keep    bool // the answer's body, in body
	body    []byte
}

func (c *client) work(end time.Time, every time.Duration, anew bool) {
	for next := time.Now(); c.err == nil; {
		begin := time.Now()
		if begin.After(end) {
			return
		}
		if anew {
			c.conn.Close()
			c.conn = nil
		}
		var status string
		if status, c.err = c.ask(); status != "200" {
			c.refused++
		}
		c.took = append(c.took, time.Since(begin))
		next = next.Add(every)
		time.Sleep(time.Until(next))
	}
}

// ask sends the request and reads the answer, as little of it as will do: what
// the client spends, the server cannot have.
func (c *client) ask() (status string, err error) {
	if c.conn == nil {
		if c.conn, err = net.Dial("tcp", c.addr); err != nil {
			return "", err
		}
		c.read = bufio.NewReaderSize(c.conn, 8<<10)
	}
	if _, err := c.conn.Write(c.request); err != nil {
		return "", err
	}
	line, err := c.read.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	if len(line) < len("HTTP/1.1 200") {
		return "", fmt.Errorf("the answer begins with %q", line)
	}
	status = string(line[9:12])
	length := 0
	for {
		if line, err = c.read.ReadSlice('\n'); err != nil {
			return "", err
		}
		if len(line) <= 2 {
			break
		}
		if v, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(v)); err != nil {
				return "", err
			}
		}
	}
	if c.keep {
		c.body = make([]byte, length)
		_, err = io.ReadFull(c.read, c.body)
	} else {
		_, err = c.read.Discard(length)
	}
	return status, err
}

// cpu is the time that a process has spent on the processors.
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// What follows the name, which may have anything in it; see proc(5).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	var ticks int // of 10 ms: user, system
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
