package daemonmetric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	cnitypes "github.com/containernetworking/cni/pkg/types"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/server"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/metric/metrictest"
	kernel "github.com/trivet-node/trivet/internal/namespace"
)

// works is all parts of a server, each of which fails with err.
type works struct {
	sandbox.Kernel
	sandbox.Network
	container.Bundles
	container.Processes
	server.Images
	err error
}

func (w works) CreateNamespaces(map[kernel.Kind]string, *kernel.Users, func() error) error {
	return w.err
}
func (w works) Setup(context.Context, network.Attachment) ([]netip.Addr, error) {
	return nil, w.err
}
func (w works) Teardown(context.Context, network.Attachment) error { return w.err }
func (w works) Make(context.Context, bundle.Request) (bundle.Bundle, error) {
	return bundle.Bundle{}, w.err
}
func (w works) Create(context.Context, monitor.Container) (int, error) { return 0, w.err }
func (w works) Start(context.Context, string) error                    { return w.err }
func (w works) Delete(context.Context, string) error                   { return w.err }
func (w works) Pull(context.Context, string, registry.Auth) (image.Image, error) {
	return image.Image{}, w.err
}

// do does each step once.
func do(t *testing.T, s *Set, w works) {
	t.Helper()
	ctx := t.Context()
	errs := []error{
		s.Kernel(w).CreateNamespaces(nil, nil, nil),
		s.Network(w).Teardown(ctx, network.Attachment{}),
		s.Processes(w).Start(ctx, ""),
		s.Processes(w).Delete(ctx, ""),
	}
	_, err := s.Network(w).Setup(ctx, network.Attachment{})
	errs = append(errs, err)
	_, err = s.Bundles(w).Make(ctx, bundle.Request{})
	errs = append(errs, err)
	_, err = s.Processes(w).Create(ctx, monitor.Container{})
	errs = append(errs, err)
	_, err = s.Images(w).Pull(ctx, "", registry.Auth{})
	errs = append(errs, err)

	for i, err := range errs {
		if !errors.Is(err, w.err) {
			t.Errorf("step %d: %v, want %v", i, err, w.err)
		}
	}
}

func scrape(s *Set) string {
	w := httptest.NewRecorder()
	handler := metric.Handler(s.Registry, slog.Default())
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func has(t *testing.T, s *Set, lines ...string) {
	t.Helper()
	got := scrape(s)
	for _, line := range lines {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
}

func TestStepsAreMeasuredByResult(t *testing.T) {
	s := New()
	do(t, s, works{})
	do(t, s, works{err: errors.New("disk on fire")})

	for _, step := range []string{
		stepNamespaces, stepNetwork, stepRootfs, stepCreate, stepStart, stepDelete, stepRelease,
	} {
		for _, result := range []string{"ok", "error"} {
			const line = `trivet_cri_step_duration_seconds_count{result=%q,step=%q} 1`
			has(t, s, fmt.Sprintf(line, result, step))
		}
	}
	has(t, s,
		`trivet_cri_image_pull_duration_seconds_count{result="ok"} 1`,
		`trivet_cri_image_pull_duration_seconds_count{result="error"} 1`)
}

func TestCallsOfCNIHaveTheCodeOfThePlugin(t *testing.T) {
	s := New()
	for _, err := range []error{
		nil,
		fmt.Errorf("join: %w", &cnitypes.Error{Code: 11, Msg: "try again later"}),
		&cnitypes.Error{Code: 4711},
		&cnitypes.Error{Code: 4712},
		errors.New("no such plugin"),
	} {
		_, _ = s.Network(works{err: err}).Setup(t.Context(), network.Attachment{})
	}
	has(t, s,
		`trivet_cri_cni_calls_total{code="0",command="ADD"} 1`,
		`trivet_cri_cni_calls_total{code="11",command="ADD"} 1`,
		`trivet_cri_cni_calls_total{code="plugin",command="ADD"} 2`,
		`trivet_cri_cni_calls_total{code="other",command="ADD"} 1`)
}

func TestCallsAndBytesAreCounted(t *testing.T) {
	s := New()
	s.Calls.Observe("/runtime.v1.RuntimeService/RunPodSandbox", codes.Unknown, time.Second)
	s.Received(1000)
	s.Received(24)
	has(t, s,
		`trivet_cri_calls_total{code="Unknown",method="RunPodSandbox"} 1`,
		`trivet_cri_call_duration_seconds_count{method="RunPodSandbox"} 1`,
		`trivet_cri_image_pull_bytes_total 1024`)
}

// node has two sandboxes, three containers, an image, and a monitor that was started twice.
type node struct{ connected bool }

type sandboxes struct{}

func (sandboxes) List() []sandbox.Record {
	return []sandbox.Record{{State: life.Ready}, {State: life.Stopped}}
}

type containers struct{}

func (containers) List() []container.Record {
	return []container.Record{{State: life.Running}, {State: life.Running}, {State: life.Exited}}
}

func (node) List() []image.Image   { return make([]image.Image, 1) }
func (node) Usage() (int64, int64) { return 4096, 2 }
func (n node) Connected() bool     { return n.connected }
func (node) Connections() int64    { return 2 }

func TestTheDocumentsHaveAllMetrics(t *testing.T) {
	s := New()
	s.Count(Inventory{
		Sandboxes:  sandboxes{},
		Containers: containers{},
		Images:     node{},
		Monitor:    node{},
	})
	s.Calls.Observe("/runtime.v1.RuntimeService/Version", codes.OK, time.Millisecond)
	do(t, s, works{})
	metrictest.Compare(t, "trivet-cri", s.Registry)
}

func TestWhatThereIsIsCountedByState(t *testing.T) {
	s := New()
	s.Count(Inventory{
		Sandboxes:  sandboxes{},
		Containers: containers{},
		Images:     node{},
		Monitor:    node{connected: true},
	})
	has(t, s,
		`trivet_cri_sandboxes{state="ready"} 1`,
		`trivet_cri_sandboxes{state="stopped"} 1`,
		`trivet_cri_containers{state="created"} 0`,
		`trivet_cri_containers{state="running"} 2`,
		`trivet_cri_containers{state="exited"} 1`,
		`trivet_cri_images 1`,
		`trivet_cri_image_bytes 4096`,
		`trivet_cri_monitor_connected 1`,
		`trivet_cri_monitor_connections_total 2`)
}
