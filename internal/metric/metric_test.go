package metric

import (
	"compress/gzip"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// scrape asks a handler for its metrics, with headers in pairs.
func scrape(h http.Handler, headers ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(t *testing.T, body io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestEachDaemonHasWhatTheProcessAndTheRuntimeHave(t *testing.T) {
	got := text(t, scrape(Handler(NewRegistry("x"), slog.Default())).Body)
	for _, want := range []string{
		"\nprocess_cpu_seconds_total ",
		"\nprocess_resident_memory_bytes ",
		"\nprocess_open_fds ",
		"\ngo_goroutines ",
		`trivet_build_info{component="x",version="v0.0.0-dev"} 1`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestTheScraperChoosesTheFormat(t *testing.T) {
	const openMetrics = "application/openmetrics-text;version=1.0.0"
	handler := Handler(NewRegistry("x"), slog.Default())
	got := scrape(handler).Header.Get("Content-Type")
	if !strings.HasPrefix(got, "text/plain; version=0.0.4") {
		t.Errorf("without Accept: %s", got)
	}

	resp := scrape(handler, "Accept", openMetrics)
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("with OpenMetrics: %s", got)
	}
	if !strings.HasSuffix(text(t, resp.Body), "# EOF\n") {
		t.Error("OpenMetrics without its end")
	}

	resp = scrape(TextHandler(NewRegistry("x"), slog.Default()), "Accept", openMetrics)
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain") {
		t.Errorf("text only: %s", got)
	}
}

func TestScrapesAreCompressed(t *testing.T) {
	resp := scrape(Handler(NewRegistry("x"), slog.Default()), "Accept-Encoding", "gzip")
	plain, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text(t, plain), "go_goroutines") {
		t.Error("nothing in it")
	}
}

func TestACollectorThatFailsLeavesTheOthers(t *testing.T) {
	r := NewRegistry("x")
	desc := prometheus.NewDesc("broken", "It fails.", nil, nil)
	r.MustRegister(prometheus.CollectorFunc(func(out chan<- prometheus.Metric) {
		out <- prometheus.NewInvalidMetric(desc, errors.New("disk on fire"))
	}))

	var log strings.Builder
	resp := scrape(Handler(r, slog.New(slog.NewTextHandler(&log, nil))))
	if resp.StatusCode != http.StatusOK || !strings.Contains(text(t, resp.Body), "go_goroutines") {
		t.Errorf("status %d", resp.StatusCode)
	}
	if !strings.Contains(log.String(), "disk on fire") {
		t.Errorf("log: %s", log.String())
	}
}

// unchecked is a collector without figures, which is asked for them by scrapes alone.
type unchecked func()

func (unchecked) Describe(chan<- *prometheus.Desc)         {}
func (collect unchecked) Collect(chan<- prometheus.Metric) { collect() }

func TestScrapesAtTheSameTimeAreBounded(t *testing.T) {
	r := NewRegistry("x")
	entered, leave := make(chan struct{}), make(chan struct{})
	r.MustRegister(unchecked(func() {
		entered <- struct{}{}
		<-leave
	}))

	handler := Handler(r, slog.Default())
	codes := make(chan int)
	for range maxScrapes + 1 {
		go func() { codes <- scrape(handler).StatusCode }()
	}

	// One is too many while the others wait for the one that collects.
	<-entered
	if got := <-codes; got != http.StatusServiceUnavailable {
		t.Errorf("the one too many: status %d", got)
	}

	leave <- struct{}{}
	for range maxScrapes {
		if got := <-codes; got != http.StatusOK {
			t.Errorf("status %d", got)
		}
	}
}
