package metric

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
)

// maxConnections is how many scrapers may be connected; others wait until one has gone.
const maxConnections = 16

// Flag is the name of the flag that the daemons have for the address of their metrics, and Usage what --help
// says about it.
const (
	Flag  = "metrics-address"
	Usage = "`address` that serves /metrics: host:port such as 127.0.0.1:10262," +
		` or unix:///path of a socket; "" serves none`
)

// CheckAddress reports what is wrong with an address: it is empty (nothing is served), host:port or
// unix:///path. A port without a host, by which Go means all interfaces, is refused: metrics are not
// authenticated, and who wants them on all interfaces says 0.0.0.0.
func CheckAddress(address string) error {
	if address == "" {
		return nil
	}
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("address %q: the socket path must be absolute", address)
		}
		return nil
	}

	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return fmt.Errorf("address %q is neither host:port nor unix:///path", address)
	case host == "":
		return fmt.Errorf("address %q names no host: say 127.0.0.1:%s, or 0.0.0.0:%s for all interfaces",
			address, port, port)
	}
	return nil
}

// Server serves /metrics.
type Server struct {
	listener net.Listener
	handler  http.Handler
	log      *slog.Logger
}

// Listen returns a server of what is gathered, which listens and does not answer before Run. An address that
// is taken is a *program.CantRunError. With the address "" there is nothing to serve, and Run only waits.
func Listen(
	ctx context.Context, address string, from prometheus.Gatherer, log *slog.Logger,
) (*Server, error) {
	s := &Server{log: log}
	if err := CheckAddress(address); err != nil || address == "" {
		return s, err
	}

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", Handler(from, log))
	s.handler = mux

	var err error
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		s.listener, err = listenUnix(ctx, path)
		return s, err
	}

	s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return s, &program.CantRunError{
			What: "address of metrics: " + err.Error(),
			Do:   "stop the process that has it, or choose another --" + Flag,
		}
	}
	return s, nil
}

// Run serves until ctx ends. Scrapes that are under way then are cut.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}

	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      2 * scrapeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()

	s.log.Info("serving metrics", "address", s.listener.Addr().String())
	err := server.Serve(netutil.LimitListener(s.listener, maxConnections))
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// listenUnix listens on a socket that root alone can use. A lock beside it, which is held until the process
// ends, says that what is there is the socket of a process that was killed. (internal/socket does more, and
// knows gRPC, which not every daemon has.)
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := lockfile.Hold(ctx, path+".lock", "socket "+path); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}

	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}
