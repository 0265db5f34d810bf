// Package runtimetest is a container runtime in memory, served over a real CRI socket, for tests of what
// speaks CRI. Containers of image "exit:N" end with code N as soon as they are started; all others run until
// they are stopped or a test ends them.
package runtimetest

import (
	"context"
	"maps"
	"net"
	"path"
	"path/filepath"
	"slices"
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
	Socket string

	// mu guards what follows.
	mu sync.Mutex
	pods
	images    map[string]bool
	passwords map[string]string // by image
	stats     []*cri.PodSandboxStats
	streams   Streams
	record    record
	behaviour behaviour
	listeners map[chan *cri.ContainerEventResponse]bool
}

// service is what CRI sees of the runtime.
type service struct {
	cri.UnimplementedRuntimeServiceServer
	*Server
}

// imageService is what CRI sees of the runtime's images.
type imageService struct {
	cri.UnimplementedImageServiceServer
	*Server
}

// pods are the sandboxes and containers that there are, by ID.
type pods struct {
	serial     int // of the last ID
	sandboxes  map[string]*cri.PodSandboxStatus
	containers map[string]*cri.ContainerStatus
	parents    map[string]string // by container: its sandbox
	logDirs    map[string]string // by sandbox
}

// record is what the runtime was asked for.
type record struct {
	counts    map[string]int // by method
	calls     []string
	called    chan struct{}     // closed and replaced at every call
	resolvers []string          // name servers of each sandbox
	mapped    []string          // what has a user namespace
	auths     []*cri.AuthConfig // of each pull
}

// behaviour is how the runtime differs from one that does what it is asked for.
type behaviour struct {
	fail     map[string]error // by method
	held     map[string]bool  // methods
	stubborn map[string]bool  // names of containers that ignore the stop signal

	// unstartable are containers by name, with what the answer of their start waits for.
	unstartable map[string]chan struct{}
}

// Start serves a runtime until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{
		Socket: filepath.Join(testenv.ShortDir(tb), "cri.sock"),
		pods: pods{
			sandboxes:  map[string]*cri.PodSandboxStatus{},
			containers: map[string]*cri.ContainerStatus{},
			parents:    map[string]string{},
			logDirs:    map[string]string{},
		},
		images:    map[string]bool{},
		passwords: map[string]string{},
		record:    record{counts: map[string]int{}, called: make(chan struct{})},
		behaviour: behaviour{
			fail:     map[string]error{},
			held:     map[string]bool{},
			stubborn: map[string]bool{},

			unstartable: map[string]chan struct{}{},
		},
		listeners: map[chan *cri.ContainerEventResponse]bool{},
	}

	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		tb.Fatal(err)
	}

	g := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	cri.RegisterRuntimeServiceServer(g, service{Server: s})
	cri.RegisterImageServiceServer(g, imageService{Server: s})

	done := make(chan struct{})
	go func() {
		defer close(done)

		_ = g.Serve(l)
	}()

	tb.Cleanup(func() {
		g.Stop()
		<-done
	})

	return s
}

// changing are the methods that Calls has, those included that fail.
var changing = []string{
	"RunPodSandbox", "StopPodSandbox", "RemovePodSandbox",
	"CreateContainer", "StartContainer", "StopContainer", "RemoveContainer",
	"ReopenContainerLog", "CheckpointContainer", "ExecSync", "UpdateRuntimeConfig", "PullImage",
}

// FailOn makes calls of the named method fail until err is nil.
func (s *Server) FailOn(method string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour.fail[method] = err
}

// Hold makes calls of the named method last until their caller gives up; they are in Calls as "Hold METHOD".
func (s *Server) Hold(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour.held[method] = true
}

// Refuse makes the start of containers of this name fail: they end, and the caller hears why after answer was
// called.
func (s *Server) Refuse(name string) (answer func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	heard := make(chan struct{})
	s.behaviour.unstartable[name] = heard
	return sync.OnceFunc(func() { close(heard) })
}

// intercept counts calls, holds those of methods that Hold has named, and fails those of FailOn that need not
// be recorded before.
func (s *Server) intercept(
	ctx context.Context, r any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	method := path.Base(info.FullMethod)
	s.mu.Lock()
	s.record.counts[method]++
	err := s.behaviour.fail[method]
	held := s.behaviour.held[method]
	if held {
		_ = s.note("Hold", method)
	}

	s.mu.Unlock()

	if held {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}

	if err != nil && !slices.Contains(changing, method) {
		return nil, err
	}

	return handler(ctx, r)
}

// Stubborn makes containers of this name end only by SIGKILL, after the grace.
func (s *Server) Stubborn(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behaviour.stubborn[name] = true
}

// Calls returns the calls that changed something, in order: "StartContainer app/0".
func (s *Server) Calls() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.record.calls)
}

// Asked returns how often a method was called.
func (s *Server) Asked(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.counts[method]
}

// Await waits until a call was made, named as in Calls.
func (s *Server) Await(tb testing.TB, call string) {
	tb.Helper()
	deadline := time.After(10 * time.Second)
	for {
		s.mu.Lock()
		calls, next := slices.Clone(s.record.calls), s.record.called
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

// Left returns the IDs of the sandboxes and containers that there are.
func (s *Server) Left() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(slices.Sorted(maps.Keys(s.sandboxes)), slices.Sorted(maps.Keys(s.containers)))
}

// note records a call and returns the error that it must fail with. The caller holds the lock.
func (s *Server) note(method, object string) error {
	s.record.calls = append(s.record.calls, method+" "+object)
	close(s.record.called)
	s.record.called = make(chan struct{})
	return s.behaviour.fail[method]
}

// selected reports whether labels have all that the selector has.
func selected(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func notFound(what, id string) error {
	return status.Errorf(codes.NotFound, "no such %s: %s", what, id)
}
