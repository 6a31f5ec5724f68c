package agent

import (
	"context"
	"net"
	"path/filepath"
	"time"

	"github.com/innate-id/innate/internal/agent/door"
	"github.com/innate-id/innate/internal/agent/metrics"
	"github.com/innate-id/innate/internal/evidence"
)

// metricsMode is a metrics socket's: for the agent's own user and root.
const metricsMode = 0o600

// listenMetrics opens the door of the metrics, which answers anyone who can
// reach it the same.
func (a *Agent) listenMetrics(ctx context.Context) (*door.Door, error) {
	if a.metrics == nil {
		return nil, nil
	}
	cfg := a.door("metrics", a.metrics.Handler())
	cfg.Identify = func(net.Conn) (evidence.Evidence, error) { return evidence.Evidence{}, nil }
	if filepath.IsAbs(a.cfg.MetricsListen) {
		return door.ListenUnix(ctx, cfg, a.cfg.MetricsListen, metricsMode)
	}
	return door.Listen(ctx, cfg, a.cfg.MetricsListen)
}

// facts are what the metrics read of this agent.
func (a *Agent) facts() metrics.Facts {
	return metrics.Facts{
		Feed: func() (bool, int64, time.Duration) {
			connected, revision, heard := a.feed.state()
			return connected, revision, time.Since(heard)
		},
		Journal: a.journal.Waiting,
		Tokens:  a.tokens.Len,
		Starts:  a.starts.len,
		Expires: a.key.Expires,
	}
}

// MetricsAddr returns where the metrics are served, "" if nowhere.
func (a *Agent) MetricsAddr() string {
	if a.scrape == nil {
		return ""
	}
	return a.scrape.Addr()
}
