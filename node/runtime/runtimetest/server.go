// Package runtimetest is a container runtime in memory, served over a real CRI socket, for tests of what
// speaks CRI. Containers of image "exit:N" end with code N as soon as they are started; all others run until
// they are stopped or told to end.
package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/testenv"
)

// Server is the runtime. Its zero value is not usable: Start makes one.
type Server struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
	Socket string

	mu         sync.Mutex // guards all below
	serial     int
	sandboxes  map[string]*cri.PodSandboxStatus
	containers map[string]*cri.ContainerStatus
	parents    map[string]string // container -> sandbox
	images     map[string]bool
	passwords  map[string]string // of images
	fail       map[string]error
	calls      []string
	resolvers  []string      // name servers of each sandbox
	users      []string      // of each pull
	called     chan struct{} // closed and made anew at every call
	listeners  map[chan *cri.ContainerEventResponse]bool
	stubborn   map[string]bool // containers (by name) that ignore the stop signal
	held       map[string]bool // methods
}

// Start serves a runtime until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{
		Socket:     filepath.Join(testenv.ShortDir(tb), "cri.sock"),
		sandboxes:  map[string]*cri.PodSandboxStatus{},
		containers: map[string]*cri.ContainerStatus{},
		parents:    map[string]string{},
		images:     map[string]bool{},
		passwords:  map[string]string{},
		fail:       map[string]error{},
		listeners:  map[chan *cri.ContainerEventResponse]bool{},
		stubborn:   map[string]bool{},
		held:       map[string]bool{},
		called:     make(chan struct{}),
	}

	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		tb.Fatal(err)
	}

	g := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	cri.RegisterRuntimeServiceServer(g, s)
	cri.RegisterImageServiceServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	tb.Cleanup(func() { g.Stop(); <-done })
	return s
}

// FailOn makes calls of the named method fail until err is nil.
func (s *Server) FailOn(method string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[method] = err
}

// Hold makes calls of the named method last until their caller gives up; they are in Calls as "Hold METHOD".
func (s *Server) Hold(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[method] = true
}

// intercept holds the calls that are to be held.
func (s *Server) intercept(
	ctx context.Context, r any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	method := path.Base(info.FullMethod)
	s.mu.Lock()
	held := s.held[method]
	if held {
		_ = s.note("Hold", method)
	}

	s.mu.Unlock()

	if held {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}

	return handler(ctx, r)
}

// Stubborn makes containers of this name end only by SIGKILL, after the grace.
func (s *Server) Stubborn(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stubborn[name] = true
}

// Calls returns the calls that changed something, in order: "StartContainer app/0".
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Await waits until a call was made, named as in Calls.
func (s *Server) Await(tb testing.TB, call string) {
	tb.Helper()
	deadline := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		calls, next := slices.Clone(s.calls), s.called
		s.mu.Unlock()
		if slices.Contains(calls, call) {
			return
		}

		select {
		case <-next:
		case <-deadline:
			tb.Fatalf("no call %q in %v", call, calls)
		}
	}
}

// Exit ends the running container of this name.
func (s *Server) Exit(name string, code int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.containers {
		if c.Metadata.Name == name && c.State == cri.ContainerState_CONTAINER_RUNNING {
			s.exit(id, code)
		}
	}
}

// Resolvers returns the name servers of each sandbox that was made, in order.
func (s *Server) Resolvers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.resolvers)
}

// Users returns the user name that came with each pull, in order.
func (s *Server) Users() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.users)
}

// Left tells what is left.
func (s *Server) Left() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Sorted(maps.Keys(s.sandboxes)), slices.Sorted(maps.Keys(s.containers))...)
}

func label(c *cri.ContainerStatus) string {
	return fmt.Sprintf("%s/%d", c.Metadata.Name, c.Metadata.Attempt)
}

// note records a call and reports whether it must fail. The caller holds the lock.
func (s *Server) note(method, object string) error {
	s.calls = append(s.calls, method+" "+object)
	close(s.called)
	s.called = make(chan struct{})
	return s.fail[method]
}

func (s *Server) exit(id string, code int32) {
	c := s.containers[id]
	c.State, c.ExitCode, c.FinishedAt = cri.ContainerState_CONTAINER_EXITED, code, time.Now().UnixNano()
	s.publish(id, cri.ContainerEventType_CONTAINER_STOPPED_EVENT)
}

func (s *Server) publish(id string, kind cri.ContainerEventType) {
	e := &cri.ContainerEventResponse{
		ContainerId:        id,
		ContainerEventType: kind,
		PodSandboxStatus:   statusOf(s.sandboxes[s.parents[id]]),
	}
	for l := range s.listeners {
		select {
		case l <- e:
		default:
		}
	}
}

// GetContainerEvents streams events.
func (s *Server) GetContainerEvents(
	_ *cri.GetEventsRequest,
	stream grpc.ServerStreamingServer[cri.ContainerEventResponse],
) error {
	events := make(chan *cri.ContainerEventResponse, 100)
	s.mu.Lock()
	s.listeners[events] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, events)
		s.mu.Unlock()
	}()

	for {
		select {
		case <-stream.Context().Done():
			return nil
		case e := <-events:
			if err := stream.Send(e); err != nil {
				return err
			}
		}
	}
}

// Version answers.
func (s *Server) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "fake", RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status is always ready.
func (s *Server) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	return &cri.StatusResponse{
		Status: &cri.RuntimeStatus{
			Conditions: []*cri.RuntimeCondition{
				{Type: cri.RuntimeReady, Status: true},
				{Type: cri.NetworkReady, Status: true},
			},
		},
	}, nil
}

// RunPodSandbox makes a sandbox.
func (s *Server) RunPodSandbox(
	_ context.Context,
	r *cri.RunPodSandboxRequest,
) (*cri.RunPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("RunPodSandbox", fmt.Sprint(r.Config.Metadata.Attempt)); err != nil {
		return nil, err
	}

	s.resolvers = append(s.resolvers, strings.Join(r.Config.GetDnsConfig().GetServers(), ","))
	s.serial++
	id := "sandbox" + strconv.Itoa(s.serial)
	s.sandboxes[id] = &cri.PodSandboxStatus{
		Id:          id,
		Metadata:    r.Config.Metadata,
		State:       cri.PodSandboxState_SANDBOX_READY,
		CreatedAt:   time.Now().UnixNano(),
		Labels:      r.Config.Labels,
		Annotations: r.Config.Annotations,
		Network:     &cri.PodSandboxNetworkStatus{Ip: "10.0.0." + strconv.Itoa(s.serial)},
	}

	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

// StopPodSandbox stops a sandbox and its containers.
func (s *Server) StopPodSandbox(
	_ context.Context,
	r *cri.StopPodSandboxRequest,
) (*cri.StopPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("StopPodSandbox", r.PodSandboxId); err != nil {
		return nil, err
	}

	for id, parent := range s.parents {
		if parent == r.PodSandboxId && s.containers[id].State == cri.ContainerState_CONTAINER_RUNNING {
			s.exit(id, 137)
		}
	}

	if b := s.sandboxes[r.PodSandboxId]; b != nil {
		b.State = cri.PodSandboxState_SANDBOX_NOTREADY
	}

	return &cri.StopPodSandboxResponse{}, nil
}

// RemovePodSandbox removes a sandbox and its containers.
func (s *Server) RemovePodSandbox(
	_ context.Context,
	r *cri.RemovePodSandboxRequest,
) (*cri.RemovePodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("RemovePodSandbox", r.PodSandboxId); err != nil {
		return nil, err
	}

	for id, parent := range s.parents {
		if parent == r.PodSandboxId {
			delete(s.containers, id)
			delete(s.parents, id)
		}
	}

	delete(s.sandboxes, r.PodSandboxId)
	return &cri.RemovePodSandboxResponse{}, nil
}

func selected(labels map[string]string, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// ListPodSandbox lists by label.
func (s *Server) ListPodSandbox(
	_ context.Context,
	r *cri.ListPodSandboxRequest,
) (*cri.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	out := &cri.ListPodSandboxResponse{}
	for _, b := range s.sandboxes {
		if selected(b.Labels, r.GetFilter().GetLabelSelector()) {
			out.Items = append(out.Items, &cri.PodSandbox{
				Id:          b.Id,
				Metadata:    b.Metadata,
				State:       b.State,
				CreatedAt:   b.CreatedAt,
				Labels:      b.Labels,
				Annotations: b.Annotations,
			})
		}
	}

	return out, nil
}

// PodSandboxStatus answers.
func (s *Server) PodSandboxStatus(
	_ context.Context,
	r *cri.PodSandboxStatusRequest,
) (*cri.PodSandboxStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.sandboxes[r.PodSandboxId]
	if b == nil {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	return &cri.PodSandboxStatusResponse{Status: statusOf(b)}, nil
}

// statusOf is a copy: it is sent while the sandbox goes on changing.
func statusOf(b *cri.PodSandboxStatus) *cri.PodSandboxStatus {
	return &cri.PodSandboxStatus{
		Id:        b.GetId(),
		Metadata:  b.GetMetadata(),
		State:     b.GetState(),
		CreatedAt: b.GetCreatedAt(),
		Labels:    b.GetLabels(),
		Network:   b.GetNetwork(),
	}
}

func exitCodeOf(image string) (int32, bool) {
	text, ok := strings.CutPrefix(strings.TrimPrefix(image, idPrefix), "exit:")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return int32(n), err == nil
}
