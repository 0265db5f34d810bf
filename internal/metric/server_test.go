package metric

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestAnAddressNamesItsHost(t *testing.T) {
	for address, want := range map[string]string{
		"":                   "",
		"127.0.0.1:10262":    "",
		"[::1]:10262":        "",
		"0.0.0.0:10262":      "",
		"unix:///run/m.sock": "",
		":10262":             "127.0.0.1:10262",
		"10262":              "neither",
		"/run/m.sock":        "neither",
		"unix://m.sock":      "absolute",
	} {
		err := CheckAddress(address)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", address, err, want)
		}
	}
}

// run serves until the test calls stop.
func run(t *testing.T, address string) (s *Server, stop func()) {
	t.Helper()
	s, err := Listen(t.Context(), address, NewRegistry("x"), slog.Default())
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// get asks a server by its network for /metrics.
func get(t *testing.T, s *Server) string {
	t.Helper()
	address := s.listener.Addr()
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, address.Network(), address.String())
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get("http://x/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return text(t, resp.Body)
}

func TestMetricsAreServedOnAPortOrASocket(t *testing.T) {
	path := testenv.ShortDir(t) + "/m.sock"
	for _, address := range []string{"127.0.0.1:0", "unix://" + path} {
		s, stop := run(t, address)
		if got := get(t, s); !strings.Contains(got, "go_goroutines") {
			t.Errorf("%s: %s", address, got)
		}
		stop()
	}

	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestWithoutAnAddressNothingListens(t *testing.T) {
	s, stop := run(t, "")
	if s.listener != nil {
		t.Error("it listens")
	}
	stop()
}

func TestAnAddressThatIsTakenIsAnErrorOfTheStart(t *testing.T) {
	s, stop := run(t, "127.0.0.1:0")
	defer stop()
	_, err := Listen(t.Context(), s.listener.Addr().String(), NewRegistry("x"), slog.Default())
	if _, ok := errors.AsType[*program.CantRunError](err); !ok {
		t.Errorf("%v", err)
	}
}

func TestTheSocketOfAProcessThatWasKilledIsTakenOver(t *testing.T) {
	path := testenv.ShortDir(t) + "/m.sock"
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()

	s, stop := run(t, "unix://"+path)
	defer stop()
	if got := get(t, s); !strings.Contains(got, "go_goroutines") {
		t.Error(got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
