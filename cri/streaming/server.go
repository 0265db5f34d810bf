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

// Config is what the server needs from its surroundings.
type Config struct {
	Addr    string // host:port to listen on; port 0 takes a free one
	Monitor *monitor.Client
	// Process tells the process of a running container, from which an exec takes everything but args and
	// terminal. It is an error if there is no such container or it does not run.
	Process func(ctx context.Context, containerID string) (specs.Process, error)
	// Netns tells the path of a pod's network namespace; empty for the host's.
	Netns func(ctx context.Context, podSandboxID string) (string, error)
	Log   *slog.Logger
}

// Server serves streams.
type Server struct {
	cfg    Config
	stream cristreaming.Server
	http   http.Server
	listen net.Listener
	tokens tokens
	held   budget // of output of ExecSyncs
}

// idleTimeout ends a connection on which nothing moves, as kubelet's streamingConnectionIdleTimeout does.
const idleTimeout = 4 * time.Hour

// New listens, so that URLs can be given out, and serves nothing yet.
func New(cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}

	l, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for streams: %w", err)
	}

	config := cristreaming.DefaultConfig
	config.Addr = l.Addr().String()
	config.BaseURL = &url.URL{Scheme: "http", Host: config.Addr}
	config.StreamIdleTimeout = idleTimeout
	s := &Server{cfg: cfg, listen: l}
	s.held.left.Store(maxHeld)
	if s.stream, err = cristreaming.NewServer(config, (*adapter)(s)); err != nil {
		l.Close()
		return nil, fmt.Errorf("streaming server: %w", err)
	}

	s.http = http.Server{Handler: s, ReadHeaderTimeout: 30 * time.Second, ConnContext: connContext}
	return s, nil
}

// Run serves until ctx ends; then all streams are cut.
func (s *Server) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.http.Close() })()
	if err := s.http.Serve(watchedListener{s.listen}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve streams: %w", err)
	}
	return nil
}

// Exec returns the URL at which the exec takes place. The checks are CRI's.
func (s *Server) Exec(req *runtimeapi.ExecRequest) (resp *runtimeapi.ExecResponse, err error) {
	err = s.issue("container "+req.ContainerId, req, func() (string, error) {
		resp, err = s.stream.GetExec(req)
		return resp.GetUrl(), err
	})
	return resp, err
}

// Attach returns the URL at which the attach takes place.
func (s *Server) Attach(req *runtimeapi.AttachRequest) (resp *runtimeapi.AttachResponse, err error) {
	err = s.issue("container "+req.ContainerId, req, func() (string, error) {
		resp, err = s.stream.GetAttach(req)
		return resp.GetUrl(), err
	})
	return resp, err
}

// PortForward returns the URL at which ports are forwarded. The library is not asked: it would serve the
// URL itself.
func (s *Server) PortForward(req *runtimeapi.PortForwardRequest) (*runtimeapi.PortForwardResponse, error) {
	if req.PodSandboxId == "" {
		return nil, errors.New("port-forward: no pod sandbox")
	}
	at := fmt.Sprintf("http://%s/portforward/%s", s.listen.Addr(), rand.Text())
	if err := s.issue("pod "+req.PodSandboxId, req, func() (string, error) { return at, nil }); err != nil {
		return nil, err
	}
	return &runtimeapi.PortForwardResponse{Url: at}, nil
}
