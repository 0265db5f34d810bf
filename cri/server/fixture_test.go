package server_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/container/containertest"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/sandbox/sandboxtest"
	"github.com/trivet-node/trivet/cri/server"
	"github.com/trivet-node/trivet/cri/stats"
	"github.com/trivet-node/trivet/cri/streaming"
	"github.com/trivet-node/trivet/internal/cgroup/usage/usagetest"
	"github.com/trivet-node/trivet/internal/diskusage"
)

// serve serves a Server in memory and returns a connection to it.
func serve(t *testing.T, cfg server.Config) *grpc.ClientConn {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	listener := bufconn.Listen(1 << 20)
	g := server.New(cfg).GRPC()
	go g.Serve(listener)
	t.Cleanup(g.Stop)

	dial := func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:memory",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	return conn
}

// fixture is a client of a Server for a node without a kernel.
type fixture struct {
	runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	tb      testing.TB
	machine *sandboxtest.Machine
	node    *containertest.Node
	rest    *rest
}

func open(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		tb:      t,
		machine: sandboxtest.NewMachine(),
		node:    containertest.NewNode(),
		rest:    &rest{},
	}

	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	hub := &event.Hub{}
	sandboxes := sandboxtest.Open(t, dir, f.machine, hub)
	containers, err := container.Open(t.Context(), container.Config{
		Dir:       filepath.Join(dir, "containers"),
		Sandboxes: sandboxes,
		Images:    f.node,
		Bundles:   f.node,
		Processes: f.node,
		Inventory: f.node,
		Handlers:  ociruntime.Handlers{"": {}},
		Events:    hub,
		Log:       log,
	})
	if err != nil {
		t.Fatal(err)
	}

	f.node.Exited = containers.Ended

	conn := serve(t, server.Config{
		Version:    "v0",
		Sandboxes:  sandboxes,
		Containers: containers,
		Images:     f.rest,
		Network:    f.rest,
		Streams:    f.rest,
		Stats: stats.New(stats.Config{
			Sandboxes: sandboxes,
			Cgroups:   usagetest.New(t, true),
			Layers:    f.rest.layers(),
			Log:       log,
			V2:        true,
			HugePages: true,
		}),
		Events:   hub,
		Handlers: ociruntime.Handlers{"": {}, "crun": {NoUsers: errors.New("too old")}},
		Log:      log,
	})

	f.RuntimeServiceClient = runtimeapi.NewRuntimeServiceClient(conn)
	f.images = runtimeapi.NewImageServiceClient(conn)
	return f
}

// run makes a pod with running containers of these names. It returns the IDs, the pod's first.
func (f *fixture) run(pod string, containers ...string) []string {
	f.tb.Helper()
	ctx := f.tb.Context()
	config := sandboxtest.Pod(pod, false)
	config.Labels = map[string]string{"app": pod}
	made, err := f.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		f.tb.Fatal(err)
	}

	ids := []string{made.PodSandboxId}
	for _, name := range containers {
		created, err := f.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
			PodSandboxId: made.PodSandboxId,
			Config: &runtimeapi.ContainerConfig{
				Metadata: &runtimeapi.ContainerMetadata{Name: name},
				Image:    &runtimeapi.ImageSpec{Image: "registry.example/app:1"},
				Labels:   map[string]string{"app": pod},
				Linux: &runtimeapi.LinuxContainerConfig{
					SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
						NamespaceOptions: &runtimeapi.NamespaceOption{
							Pid: runtimeapi.NamespaceMode_CONTAINER,
						},
					},
				},
			},
		})
		if err != nil {
			f.tb.Fatal(err)
		}

		start := &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}
		if _, err := f.StartContainer(ctx, start); err != nil {
			f.tb.Fatal(err)
		}

		ids = append(ids, created.ContainerId)
	}

	return ids
}

// rest is what else a Server needs.
type rest struct {
	networkErr error
	pulled     string
	auth       registry.Auth
}

func (r *rest) Ready(context.Context) error { return r.networkErr }

func (r *rest) Get(name string) (image.Image, error) {
	if name != r.pulled || name == "" {
		return image.Image{}, fmt.Errorf("%s: %w", name, image.ErrNotFound)
	}
	return r.image(), nil
}

func (r *rest) image() image.Image {
	img := image.Image{
		ID:        "sha256:1",
		Tags:      []string{r.pulled},
		Chain:     []string{"c1", "c2"},
		RawConfig: []byte("{}"),
	}
	img.Config.Config.User = "1000:1000"
	return img
}

func (r *rest) List() []image.Image {
	if r.pulled == "" {
		return nil
	}
	return []image.Image{r.image()}
}

func (r *rest) Pull(_ context.Context, name string, auth registry.Auth) (image.Image, error) {
	r.pulled = name
	r.auth = auth
	return r.image(), nil
}

func (r *rest) Remove(name string) error {
	if name == r.pulled {
		r.pulled = ""
	}
	return nil
}

func (r *rest) Usage() (bytes, inodes int64) { return 1000, 10 }
func (r *rest) Dir() string                  { return "/var/lib/trivet/cri" }

// layers is the rest as stats.Layers.
func (r *rest) layers() stats.Layers { return writable{r} }

type writable struct{ *rest }

func (writable) Keep(func(string) bool) {}

func (writable) Measure(string, int64) diskusage.Figure {
	return diskusage.Figure{Usage: diskusage.Usage{Bytes: 7, Inodes: 2}, Time: time.Unix(1, 0)}
}

func (r *rest) ExecSync(
	_ context.Context,
	id string,
	cmd []string,
	timeout time.Duration,
) (streaming.Result, error) {
	return streaming.Result{Stdout: fmt.Append(nil, cmd, " in ", id, " for ", timeout)}, nil
}

func (r *rest) Exec(req *runtimeapi.ExecRequest) (*runtimeapi.ExecResponse, error) {
	return &runtimeapi.ExecResponse{Url: "exec/" + req.ContainerId}, nil
}

func (r *rest) Attach(req *runtimeapi.AttachRequest) (*runtimeapi.AttachResponse, error) {
	return &runtimeapi.AttachResponse{Url: "attach/" + req.ContainerId}, nil
}

func (r *rest) PortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	return &runtimeapi.PortForwardResponse{Url: "portforward/" + req.PodSandboxId}, nil
}
