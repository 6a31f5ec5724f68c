// Package metrics counts what the agent does, for Prometheus.
//
// What a newcomer would get wrong: who may read metrics is not who may have
// tokens. Nothing that names a workload, an identity, a program or an audience
// is in a label; every label has a value from a list that is in this program;
// and every counter is made at the start, so that counting one request is a
// few additions and nothing grows.
package metrics

import (
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/innate-id/innate/internal/agent/metadata"
	"github.com/innate-id/innate/internal/agent/tokens"
	"github.com/innate-id/innate/internal/evidence"
)

// Facts are what is read when somebody looks.
type Facts struct {
	// Feed returns whether the change stream is connected, the revision that it
	// has come to, and how long ago it last spoke.
	Feed func() (connected bool, revision int64, age time.Duration)
	// Journal returns what waits to be shipped and what may, in bytes.
	Journal func() (waiting, limit int64)
	Tokens  func() int
	Starts  func() int
	// Expires is when the host's certificate ends.
	Expires func() time.Time
}

// Metrics are an agent's. Make them with [New].
type Metrics struct {
	registry *prometheus.Registry
	requests map[key]prometheus.Counter
	grades   []prometheus.Counter // by [evidence.Grade]
	seconds  map[tokens.Source]prometheus.Observer
}

type key struct {
	dialect string
	outcome metadata.Outcome
	cache   tokens.Source
}

// other is the label of what is not in a list.
const other = "other"

// buckets are of answers, in seconds: from memory in microseconds, from the
// control plane in milliseconds, and up to the longest wait for it.
var buckets = []float64{.000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// New makes the metrics of one agent.
func New(f Facts) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry(), requests: map[key]prometheus.Counter{}, seconds: map[tokens.Source]prometheus.Observer{}}
	m.countRequests()
	m.countGrades()
	m.gauges(f)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *Metrics) countRequests() {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "innate_agent_requests_total",
		Help: "Requests at the doors, by dialect, by how they ended, and by where the token came from."}, []string{"dialect", "outcome", "cache"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "innate_agent_request_seconds",
		Help: "Time to answer a request, by where the token came from.", Buckets: buckets}, []string{"cache"})
	for _, cache := range []tokens.Source{tokens.Hit, tokens.Miss, tokens.Stale, ""} {
		m.seconds[cache] = seconds.WithLabelValues(word(cache))
		for _, dialect := range append(metadata.Dialects(), other) {
			for _, outcome := range []metadata.Outcome{metadata.OK, metadata.Refused, metadata.Throttled, metadata.Failed} {
				m.requests[key{dialect, outcome, cache}] = requests.WithLabelValues(dialect, string(outcome), word(cache))
			}
		}
	}
	m.registry.MustRegister(requests, seconds)
}

// word is a source as a label.
func word(s tokens.Source) string {
	if s == "" {
		return "none"
	}
	return string(s)
}

func (m *Metrics) countGrades() {
	grades := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "innate_agent_evidence_total",
		Help: "Requests by how the evidence about who asked was taken."}, []string{"grade"})
	for g := evidence.GradeNone; g <= evidence.GradeKernel; g++ {
		m.grades = append(m.grades, grades.WithLabelValues(g.String()))
	}
	m.registry.MustRegister(grades)
}

func (m *Metrics) gauges(f Facts) {
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "innate_agent_" + name, Help: help}, value))
	}
	gauge("feed_connected", "Whether the control plane's change stream is there and has spoken: 1 or 0.", func() float64 {
		if connected, _, _ := f.Feed(); connected {
			return 1
		}
		return 0
	})
	gauge("feed_revision", "The revision that the change stream has come to.", func() float64 {
		_, revision, _ := f.Feed()
		return float64(revision)
	})
	gauge("feed_age_seconds", "How long ago the change stream last spoke; -1 while it is not connected.", func() float64 {
		connected, _, age := f.Feed()
		if !connected {
			return -1
		}
		return age.Seconds()
	})
	gauge("journal_bytes", "Bytes of the record that wait to be shipped.", func() float64 {
		waiting, _ := f.Journal()
		return float64(waiting)
	})
	gauge("journal_limit_bytes", "Bytes of the record at which new callers are refused.", func() float64 {
		_, limit := f.Journal()
		return float64(limit)
	})
	gauge("tokens", "Tokens in memory.", func() float64 { return float64(f.Tokens()) })
	gauge("starts", "Programs started through the control socket that run.", func() float64 { return float64(f.Starts()) })
	gauge("certificate_expires_seconds", "When the host's certificate ends, in Unix time.", func() float64 { return float64(f.Expires().Unix()) })
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "innate_agent_build_info", Help: "1, with the program's version in its labels."}, []string{"version", "go"})
	if b, ok := debug.ReadBuildInfo(); ok {
		info.WithLabelValues(b.Main.Version, b.GoVersion).Set(1)
	}
	m.registry.MustRegister(info)
}

// Observe counts one request.
func (m *Metrics) Observe(ev *metadata.Event) {
	c, ok := m.requests[key{ev.Dialect, ev.Outcome, ev.Cache}]
	if !ok {
		c = m.requests[key{other, ev.Outcome, ev.Cache}]
	}
	c.Inc()
	m.seconds[ev.Cache].Observe(ev.Took.Seconds())
	grade := evidence.GradeNone
	if ev.Caller != nil {
		grade = ev.Caller.Evidence.Grade
	}
	if grade >= 0 && int(grade) < len(m.grades) {
		m.grades[grade].Inc()
	}
}

// Handler serves GET /metrics.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !local(r.Host) {
			// A page in a browser on this host, whose name was made to lead here.
			w.WriteHeader(http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// local reports whether a Host header is one that only this host's own
// programs write.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "" || strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}
