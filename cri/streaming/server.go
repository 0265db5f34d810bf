// Package streaming serves exec, attach and port-forward over SPDY and WebSocket (CRI's streaming endpoints,
// as kubelet and crictl use them), and ExecSync. Processes are started and attached to through the monitor;
// ports are dialled inside the pod's network namespace.
package streaming

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cristreaming "k8s.io/cri-streaming/pkg/streaming"

	"github.com/trivet-node/trivet/cri/monitor"
)

// Processes runs commands in containers and reaches the streams of their processes. The monitor does.
type Processes interface {
	Exec(ctx context.Context, cfg monitor.ExecConfig) (*monitor.Exec, error)
	Attach(ctx context.Context, containerID string, streams monitor.Streams) error

	// Resize sets the size of the container's terminal.
	Resize(containerID string, width, height uint16) error
}

// Containers finds containers.
type Containers interface {
	// Process returns the process of a running container, from which an exec takes all but its arguments and
	// terminal. It is an error if the container does not exist or does not run.
	Process(ctx context.Context, containerID string) (specs.Process, error)
}

// Sandboxes finds pods.
type Sandboxes interface {
	// NetnsOf returns the path of a pod's network namespace; empty for the host's.
	NetnsOf(podSandboxID string) (string, error)
}

// Config is what a Server needs.
type Config struct {
	// Addr is the host:port to listen on; port 0 is a free one.
	Addr string

	Processes  Processes
	Containers Containers
	Sandboxes  Sandboxes
	Log        *slog.Logger
}

// Server serves streams.
type Server struct {
	cfg      Config
	stream   cristreaming.Server
	http     http.Server
	listener net.Listener
	tokens   tokens

	// kept is what the output of all ExecSyncs together may still take.
	kept budget
}

// idleTimeout ends a connection on which nothing moves, as kubelet's streamingConnectionIdleTimeout does.
const idleTimeout = 4 * time.Hour

// headerTimeout bounds the time in which a client has to send the header of its request.
const headerTimeout = 30 * time.Second

// New listens, so that URLs can be given out, and serves nothing yet.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for streams: %w", err)
	}

	s := &Server{cfg: cfg, listener: listener}
	s.kept.left.Store(maxKept)
	s.http = http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ConnContext:       connContext,
	}

	config := cristreaming.DefaultConfig
	config.Addr = listener.Addr().String()
	config.BaseURL = &url.URL{Scheme: "http", Host: config.Addr}
	config.StreamIdleTimeout = idleTimeout
	if s.stream, err = cristreaming.NewServer(config, (*adapter)(s)); err != nil {
		listener.Close()
		return nil, fmt.Errorf("streaming server: %w", err)
	}

	return s, nil
}

// Run serves until ctx ends; then all streams are cut.
func (s *Server) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.http.Close() })
	defer stop()
	if err := s.http.Serve(watchedListener{s.listener}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve streams: %w", err)
	}
	return nil
}

// Exec returns the URL of a stream that runs a command. The library checks the request.
func (s *Server) Exec(req *runtimeapi.ExecRequest) (resp *runtimeapi.ExecResponse, err error) {
	err = s.issue("container "+req.ContainerId, req, func() (string, error) {
		resp, err = s.stream.GetExec(req)
		return resp.GetUrl(), err
	})
	return resp, err
}

// Attach returns the URL of a stream to and from a container's process. The library checks the request.
func (s *Server) Attach(req *runtimeapi.AttachRequest) (resp *runtimeapi.AttachResponse, err error) {
	err = s.issue("container "+req.ContainerId, req, func() (string, error) {
		resp, err = s.stream.GetAttach(req)
		return resp.GetUrl(), err
	})
	return resp, err
}

// PortForward returns the URL of streams to ports of a pod. The library is not asked: it would serve the URL
// itself.
func (s *Server) PortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if req.PodSandboxId == "" {
		return nil, errors.New("port-forward: no pod sandbox")
	}
	at := fmt.Sprintf("http://%s/portforward/%s", s.listener.Addr(), rand.Text())
	if err := s.issue("pod "+req.PodSandboxId, req, func() (string, error) { return at, nil }); err != nil {
		return nil, err
	}
	return &runtimeapi.PortForwardResponse{Url: at}, nil
}
