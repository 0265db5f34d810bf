// Package kubeletapi serves the node's HTTPS endpoint (:10250) as kubelet does: logs, exec, attach,
// port-forward, the pods of the node, statistics and metrics. Streams are passed through to the container
// runtime's own streaming server, SPDY and WebSocket alike; who may call is for the guard (node/auth) to say.
package kubeletapi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Pods knows the pods on the node.
type Pods interface {
	// Pods returns the pods with their newest status. They are shared: the server does not change them.
	Pods() []*v1.Pod
}

// Stats answers the statistics endpoints (stats.Collector).
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error)
	// Metrics writes a set of metrics in Prometheus' text format: "", "resource", "cadvisor" or "probes".
	Metrics(ctx context.Context, set string) ([]byte, error)
}

// Config is what a Server needs.
type Config struct {
	Address     string // host:port, e.g. ":10250"
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Guard       func(http.Handler) http.Handler // authentication and authorization; must not be nil
	Pods        Pods
	Runtime     cri.RuntimeServiceClient
	Stats       Stats // nil: those endpoints answer 501
	Configz     any   // the configuration in effect, for /configz; nil: 404
	Log         *slog.Logger

	TLS            *tls.Config // versions, cipher suites and curves; nil: TLS 1.2 and what Go chooses
	Off            Off
	LogDir         string            // served below /logs/; empty: 404
	CheckpointDir  string            // where the runtime writes checkpoints; empty: no /checkpoint
	Flagz          map[string]string // flags that were given, for /flagz; nil: 404
	Statusz        *Status           // for /statusz; nil: 404
	StreamIdleTime time.Duration     // when a stream without traffic is closed; 0: never
}

// Off are endpoints that an administrator has switched off: they answer 405.
type Off struct {
	Debugging  bool // logs, exec, attach and the like; /configz and others are not found
	SystemLogs bool // /logs/
	Profiling  bool // /debug/pprof/
	DebugFlags bool // /debug/flags/v
}

// Server is the endpoint.
type Server struct {
	cfg Config
}

// New returns a server that does not listen yet.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Run serves until ctx ends. Streams that are open then are cut.
func (s *Server) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.cfg.Address, err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Run on a listener that is there already.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		TLSConfig:         s.tlsConfig(),
	}
	if !mayHTTP2(server.TLSConfig) {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}

	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()

	if err := server.ServeTLS(listener, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.cfg.Address, err)
	}

	return nil
}

// httpError is an answer that is an error.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch e, ok := errors.AsType[*httpError](err); {
	case ok:
		code = e.code
	case status.Code(err) == codes.ResourceExhausted:
		// too many streams were asked for and not opened
		code = http.StatusTooManyRequests
	}
	http.Error(w, err.Error(), code)
}

func notFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

func writeJSON(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// passThrough hands the request on to the URL that the runtime gave for a stream, and its connection too once
// it is upgraded.
func (s *Server) passThrough(w http.ResponseWriter, r *http.Request, target string) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		fail(w, fmt.Errorf("the runtime gave the stream URL %q", target))
		return
	}

	if s.cfg.StreamIdleTime > 0 {
		w = &idleWriter{w, s.cfg.StreamIdleTime}
	}

	both := &ends{ResponseWriter: w}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			// the Host header stays: WebSocket servers compare it with Origin
			p.Out.URL = u

			// the caller's token is not the runtime's business
			p.Out.Header.Del("Authorization")
		},
		ModifyResponse: both.end,
		FlushInterval:  -1,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "connect to the container runtime: "+err.Error(), http.StatusBadGateway)
		},
	}

	proxy.ServeHTTP(both, r)
}
