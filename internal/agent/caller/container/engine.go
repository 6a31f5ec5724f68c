package container

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxAnswer is the longest answer that is read of a runtime.
const maxAnswer = 4 << 20

// engine speaks Docker's Engine API, which Podman has too.
type engine struct{ http *http.Client }

func newEngine(socket string) *engine {
	return &engine{&http.Client{
		Transport: &http.Transport{
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) },
			MaxIdleConns:    2,
			IdleConnTimeout: 10 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// inspected is what is read of the answer to GET /containers/{id}/json.
type inspected struct {
	ID    string `json:"Id"`
	Name  string // "/web"
	Image string // "sha256:<hex>"
	State struct {
		Running bool
		Pid     int
	}
	Config struct {
		Image  string // "nginx:1.27"
		Labels map[string]string
	}
}

func (e *engine) inspect(ctx context.Context, c Container) (Facts, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://runtime/containers/"+c.ID+"/json", nil)
	if err != nil {
		return Facts{}, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return Facts{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Facts{}, fmt.Errorf("it answers %s", resp.Status)
	}
	var in inspected
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&in); err != nil {
		return Facts{}, fmt.Errorf("reading its answer: %w", err)
	}
	// It also answers to names and to beginnings of ids.
	if in.ID != c.ID {
		return Facts{}, fmt.Errorf("it answers about another container, %.64q", in.ID)
	}
	f := Facts{Name: strings.TrimPrefix(in.Name, "/"), Image: in.Config.Image, ImageID: digest(in.Image), Labels: in.Config.Labels}
	if in.State.Running {
		f.pid = in.State.Pid
	}
	return f, nil
}

// digest writes an image's id as one; older Podmans leave the algorithm out.
func digest(id string) string {
	if hex64(id) {
		return "sha256:" + id
	}
	return id
}
