package container

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// nameLabels are where those who make containers with containerd, which knows
// ids only, keep a name.
var nameLabels = []string{"nerdctl/name", "io.kubernetes.container.name"}

// daemon speaks containerd's gRPC API.
type daemon struct {
	containers containers.ContainersClient
	images     images.ImagesClient
	tasks      tasks.TasksClient
}

// newContainerd connects when it is first asked.
func newContainerd(socket string) (*daemon, error) {
	conn, err := grpc.NewClient("passthrough:///runtime",
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a unix socket, whose peer dial checks
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, socket) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithIdleTimeout(10*time.Second),
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: rest, Multiplier: 1, MaxDelay: rest}, MinConnectTimeout: patience}),
	)
	if err != nil {
		return nil, err
	}
	return &daemon{containers.NewContainersClient(conn), images.NewImagesClient(conn), tasks.NewTasksClient(conn)}, nil
}

func (d *daemon) inspect(ctx context.Context, c Container) (Facts, error) {
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", c.Namespace)
	got, err := d.containers.Get(ctx, &containers.GetContainerRequest{ID: c.ID})
	if err != nil {
		return Facts{}, daemonError("the container", err)
	}
	run, err := d.tasks.Get(ctx, &tasks.GetRequest{ContainerID: c.ID})
	if err != nil {
		return Facts{}, daemonError("its task", err)
	}
	in := got.GetContainer()
	if in.GetID() != c.ID {
		return Facts{}, fmt.Errorf("it answers about another container, %.76q", in.GetID())
	}
	f := Facts{Image: in.GetImage(), Labels: in.GetLabels()}
	for _, l := range nameLabels {
		if f.Name == "" {
			f.Name = f.Labels[l]
		}
	}
	if p := run.GetProcess(); p.GetStatus() == task.Status_RUNNING {
		f.pid = int(p.GetPid())
	}
	if f.Image == "" {
		return f, nil // made of a plain folder
	}
	image, err := d.images.Get(ctx, &images.GetImageRequest{Name: f.Image})
	switch {
	case status.Code(err) == codes.NotFound: // removed, or renamed, since
		return f, nil
	case err != nil:
		return Facts{}, daemonError("its image", err)
	}
	// A container keeps its image by name only. A name that was given to another
	// image since says nothing of what runs.
	if !image.GetImage().GetUpdatedAt().AsTime().After(in.GetCreatedAt().AsTime()) {
		f.ImageID = image.GetImage().GetTarget().GetDigest()
	}
	return f, nil
}

// daemonError tells a daemon that is not there from one that says no.
func daemonError(what string, err error) error {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
