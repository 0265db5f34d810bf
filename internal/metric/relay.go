package metric

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
)

// SocketDir is where daemons of a node serve their metrics on unix sockets, COMPONENT.sock, for a relay.
const SocketDir = "/run/trivet/metrics"

// maxRelayed bounds what a relay passes on of one answer, in bytes.
const maxRelayed = 8 << 20

// Relay answers with the metrics that another daemon of the node serves on a unix socket, 404 while there is
// no socket. Of the request only what chooses format and compression is passed on.
func Relay(path string, log *slog.Logger) http.Handler {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &relay{
		path: path,
		log:  log,
		transport: &http.Transport{
			DialContext:            dial,
			DisableCompression:     true,
			MaxConnsPerHost:        maxScrapes,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
		},
	}
}

type relay struct {
	path      string
	log       *slog.Logger
	transport *http.Transport
}

// ServeHTTP implements http.Handler.
func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if _, err := os.Stat(r.path); err != nil {
		http.NotFound(w, req)
		return
	}

	ctx, cancel := context.WithTimeout(req.Context(), 2*scrapeTimeout)
	defer cancel()

	// The host is not looked at: the socket is the address.
	out, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://daemon/metrics", nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	copyHeaders(out.Header, req.Header, "Accept", "Accept-Encoding")

	resp, err := r.transport.RoundTrip(out)
	if err != nil {
		r.log.Debug("metrics of a daemon are not there", "socket", r.path, "err", err)
		http.Error(w, "the daemon does not answer", http.StatusServiceUnavailable)
		return
	}
	defer resp.Body.Close()

	copyHeaders(w.Header(), resp.Header, "Content-Type", "Content-Encoding")
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, io.LimitReader(resp.Body, maxRelayed)); err != nil {
		r.log.Debug("metrics of a daemon are cut short", "socket", r.path, "err", err)
	}
}

func copyHeaders(to, from http.Header, names ...string) {
	for _, name := range names {
		if values := from.Values(name); len(values) > 0 {
			to[name] = values
		}
	}
}
