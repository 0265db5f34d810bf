package faultproxy

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/kube"
)

// Quick are the limits of a client in a test: it does not wait for minutes.
var Quick = kube.Limits{
	Answer:  400 * time.Millisecond,
	Silence: 300 * time.Millisecond,
	Relist:  400 * time.Millisecond,
}

// Start runs a proxy in front of the server at a URL that asks for no credentials, until the test ends, and
// returns a configuration of clients that go through it.
func Start(t *testing.T, server string, seed uint64) (*Proxy, kube.Config) {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}

	transport := &http.Transport{}
	proxy := New(Config{
		Server:    target,
		Transport: transport,
		Seed:      seed,
		Log:       slog.New(slog.DiscardHandler),
	})

	front := httptest.NewServer(proxy)
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		transport.CloseIdleConnections()
		if t.Failed() {
			t.Logf("seed %d: %s", seed, proxy.Tally())
		}
	})

	cfg := kube.At(front.URL)
	cfg.Limits = Quick
	return proxy, cfg
}

// SeedVariable names a variable of the environment: a seed, with which alone tests run that else run with
// several.
const SeedVariable = "TRIVET_FAULT_SEED"

// RunsVariable names a variable of the environment: with how many seeds, from 1 on, they run.
const RunsVariable = "TRIVET_FAULT_RUNS"

// Seeds runs a test with as many seeds, side by side. Its name has the seed.
func Seeds(t *testing.T, usual uint64, test func(t *testing.T, seed uint64)) {
	t.Helper()
	first, last := uint64(1), usual
	if n, err := strconv.ParseUint(os.Getenv(RunsVariable), 10, 64); err == nil {
		last = n
	}
	if seed, err := strconv.ParseUint(os.Getenv(SeedVariable), 10, 64); err == nil {
		first, last = seed, seed
	}

	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			test(t, seed)
		})
	}
}
