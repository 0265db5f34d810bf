// Package metric is how the daemons show what they do to Prometheus: a registry with what each process has, a
// handler for scrapes, the listener for it, and interceptors that measure gRPC calls. It has no metrics of
// its own: each package makes a collector of what it counts, and the program registers it.
//
// Names follow https://prometheus.io/docs/practices/naming: base units (seconds, bytes), and counters end
// with _total.
package metric

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/trivet-node/trivet/internal/program"
)

// Limits of scrapes: further ones are refused with 503, and what takes longer is ended with 503.
const (
	maxScrapes    = 4
	scrapeTimeout = 10 * time.Second
)

// NewRegistry returns a registry with the figures of the process (process_*), of the Go runtime (go_*), and
// trivet_build_info, whose labels say which component and version runs. They are read when there is a scrape
// and cost nothing else.
func NewRegistry(component string) *prometheus.Registry {
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "trivet_build_info",
		Help: "A constant 1, labeled by component and version.",
		ConstLabels: prometheus.Labels{
			"component": component,
			"version":   program.Version,
		},
	}, func() float64 { return 1 })

	r := prometheus.NewRegistry()
	r.MustRegister(
		build,
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
	)
	return r
}

// Handler answers scrapes in OpenMetrics 1.0 or Prometheus' text format, as the scraper prefers, and with
// gzip if it accepts that. A collector that fails is logged and leaves out its figures only. Scrapes that
// come at the same time share one pass over the collectors.
func Handler(from prometheus.Gatherer, log *slog.Logger) http.Handler {
	opts := options(log)
	opts.EnableOpenMetrics = true
	return promhttp.HandlerFor(from, opts)
}

// TextHandler is Handler without OpenMetrics, in which the names of counters must end with _total: some that
// Kubernetes has fixed do not.
func TextHandler(from prometheus.Gatherer, log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(from, options(log))
}

func options(log *slog.Logger) promhttp.HandlerOpts {
	return promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		CoalesceGather:      true,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
		OfferedCompressions: []promhttp.Compression{promhttp.Identity, promhttp.Gzip},
	}
}
