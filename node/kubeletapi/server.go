// Package kubeletapi serves the node's HTTPS endpoint (:10250) as kubelet does: logs, exec, attach,
// port-forward, the pods of the node, statistics and metrics. Streams are passed through to the container
// runtime's own streaming server, SPDY and WebSocket alike. Who may call is not decided here but by the guard
// (node/auth).
package kubeletapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/health"
	"github.com/trivet-node/trivet/node/runtime"
)

// Pods is the pods of the node (podsource.Source).
type Pods interface {
	// Pods returns the pods with their newest status. They are shared and must not be changed.
	Pods() []*v1.Pod
}

// Stats answers /stats/summary (stats.Collector).
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error)
}

// Config is what a Server needs.
type Config struct {
	// Address is where it listens, e.g. ":10250".
	Address string
	// Certificate returns the node's certificate, which may be renewed while the server runs.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Guard authenticates and authorizes. It must not be nil.
	Guard   func(http.Handler) http.Handler
	Pods    Pods
	Runtime *runtime.Client
	// Stats may be nil; /stats/summary answers 501 then.
	Stats Stats
	// Metrics are the pages below /metrics/ by name: "resource", "cadvisor", "probes". That with the name ""
	// is /metrics itself. A page that is not there answers 404.
	Metrics map[string]http.Handler
	// Health is served as /healthz. Nil: only that the server answers is.
	Health *health.Checks
	// Count is wrapped around all that is served, to count it. Nil: nothing is counted.
	Count func(http.Handler) http.Handler
	Log   *slog.Logger

	// TLS has the versions, cipher suites and curves. Nil means TLS 1.2 at least and what Go chooses.
	TLS *tls.Config
	Off Off
	// Configz is the configuration in effect, served as /configz. Nil: 404.
	Configz any
	// PodLogDir is where the logs of pods are.
	PodLogDir string
	// LogDir is served below /logs/. Empty: 404.
	LogDir string
	// CheckpointDir is where the runtime writes checkpoints. Empty: /checkpoint is not served.
	CheckpointDir string
	// Flagz are the flags that were given, served as /flagz. Nil: 404.
	Flagz map[string]string
	// Statusz is served as /statusz. Nil: 404.
	Statusz *Status
	// StreamIdleTime is after how long without traffic a stream is closed; 0: never.
	StreamIdleTime time.Duration
}

// Off are endpoints that an administrator has switched off: they answer 405.
type Off struct {
	// Debugging: logs, exec, attach and the like; /configz and others are not found.
	Debugging bool

	SystemLogs bool // /logs/
	Profiling  bool // /debug/pprof/
	DebugFlags bool // /debug/flags/v
}

// Server is the endpoint.
type Server struct {
	cfg  Config
	find lookup
}

// New returns a server that does not listen yet.
func New(cfg Config) *Server {
	if cfg.Health == nil {
		cfg.Health = &health.Checks{}
	}
	return &Server{cfg: cfg, find: lookup{pods: cfg.Pods, runtime: cfg.Runtime, logs: cfg.PodLogDir}}
}

// Run serves until ctx ends. Streams that are open then are cut.
func (s *Server) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.cfg.Address, err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Run on a listener, which it closes.
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

// tlsConfig is that of the administrator, with the node's certificate.
func (s *Server) tlsConfig() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.cfg.TLS != nil {
		cfg = s.cfg.TLS.Clone()
	}
	cfg.GetCertificate = s.cfg.Certificate
	// Callers' certificates are verified by the guard, against a CA file that may change.
	cfg.ClientAuth = tls.RequestClientCert
	return cfg
}

// mayHTTP2 reports whether the cipher suites have one of those without which HTTP/2 over TLS 1.2 cannot be
// served (RFC 9113, section 9.2.2): net/http would not start.
func mayHTTP2(cfg *tls.Config) bool {
	return cfg.CipherSuites == nil || cfg.MinVersion >= tls.VersionTLS13 ||
		slices.Contains(cfg.CipherSuites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) ||
		slices.Contains(cfg.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
}
