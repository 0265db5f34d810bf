package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/trivet-node/trivet/node/health"
)

// Nobody is asked who he is on the health port, so it tells nothing else: kubelet's had the profiler
// (CVE-2019-11248).
func TestHealthPortTellsNothingButHealth(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	port := free.Addr().(*net.TCPAddr).Port
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}

	address := fmt.Sprintf("127.0.0.1:%d", port)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		defer close(served)

		served <- serveHealth(address, &health.Checks{})(ctx)
	}()

	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()

	status := func(path string) int {
		response, err := http.Get(fmt.Sprintf("http://%s%s", address, path))
		if err != nil {
			return 0
		}
		defer response.Body.Close()

		return response.StatusCode
	}

	for status("/healthz") != http.StatusOK {
		select {
		case err := <-served:
			t.Fatal(err)
		case <-t.Context().Done():
			t.Fatal("nothing answers")
		default:
		}
	}

	for _, path := range []string{
		"/", "/debug/pprof/", "/debug/pprof/heap", "/metrics", "/configz", "/pods", "/healthz/x",
	} {
		if got := status(path); got != http.StatusNotFound {
			t.Errorf("%s: %d", path, got)
		}
	}
}
