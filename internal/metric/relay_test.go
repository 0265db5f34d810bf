package metric

import (
	"compress/gzip"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestARelayPassesOnWhatADaemonServes(t *testing.T) {
	path := testenv.ShortDir(t) + "/x.sock"
	relay := Relay(path, slog.Default())
	if got := scrape(relay); got.StatusCode != http.StatusNotFound {
		t.Errorf("without a daemon: %d", got.StatusCode)
	}

	_, stop := run(t, "unix://"+path)
	resp := scrape(relay, "Accept", "application/openmetrics-text;version=1.0.0", "Accept-Encoding", "gzip")
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/openmetrics-text") {
		t.Errorf("content type %q", got)
	}
	plain, err := gzip.NewReader(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text(t, plain), "go_goroutines") {
		t.Error("nothing in it")
	}
	stop()
}

func TestARelayKeepsCredentialsToItself(t *testing.T) {
	path := testenv.ShortDir(t) + "/x.sock"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	daemon := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Authorization"])+len(r.Header["Cookie"]) > 0 {
			t.Errorf("the daemon gets %v", r.Header)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	daemon.Listener = listener
	daemon.Start()
	defer daemon.Close()

	got := scrape(Relay(path, slog.Default()), "Authorization", "Bearer secret", "Cookie", "secret")
	if got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", got.StatusCode)
	}
}

func TestADaemonThatWasKilledIsUnavailable(t *testing.T) {
	path := testenv.ShortDir(t) + "/x.sock"
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	listener.Close()

	if got := scrape(Relay(path, slog.Default())); got.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d", got.StatusCode)
	}
}
