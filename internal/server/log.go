package server

import (
	"log"
	"log/slog"
	"strings"
)

// logWriter turns net/http's own log lines (failed handshakes, mostly) into
// events.
func logWriter(l *slog.Logger) *log.Logger { return log.New(lines{l}, "", 0) }

type lines struct{ l *slog.Logger }

func (w lines) Write(b []byte) (int, error) {
	w.l.Info("http server", "msg", strings.TrimSpace(string(b)))
	return len(b), nil
}
