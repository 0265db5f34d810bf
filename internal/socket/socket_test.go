package socket_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// TestMain lets the test binary stand in for another server process.
func TestMain(m *testing.M) {
	if path := os.Getenv("SOCKET_TEST_LISTEN"); path != "" {
		if _, err := socket.Listen(context.Background(), path); err != nil {
			println(err.Error())
			os.Exit(1)
		}
		println("listening")

		// The test kills it, or ends and closes the pipe.
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}

	os.Exit(m.Run())
}

func TestSocketOfADeadServerIsTakenOverAndThatOfALiveOneRefused(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s.sock")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), "SOCKET_TEST_LISTEN="+path)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()

	out, err := other.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}

	// "listening"
	if _, err := out.Read(make([]byte, 64)); err != nil {
		t.Fatal(err)
	}

	_, err = socket.Listen(t.Context(), path)
	if _, ok := errors.AsType[*program.CantRunError](err); !ok || !strings.Contains(err.Error(), path) {
		t.Errorf("with a live server: %v, want an error that names %s", err, path)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	other.Wait()
	l, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("after kill -9 of the server: %v", err)
	}
	defer l.Close()

	if !socket.Alive(path) {
		t.Error("nobody answers on the socket that was taken over")
	}
}

func TestListenRefusesAPathTheKernelCannotTake(t *testing.T) {
	if _, err := socket.Listen(t.Context(), "/tmp/"+strings.Repeat("x", 110)); err == nil {
		t.Error("a path of 115 bytes was accepted")
	}
}

func TestListenRefusesAnUnlockedLiveSocket(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "s.sock")

	// A server of another program has no lock file.
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := socket.Listen(t.Context(), path); err == nil {
		t.Error("the socket of a live server was taken")
	}
}

// Its directory is removed while the socket is made in it again.
func TestASocketIsKeptWhateverIsRemoved(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "d", "s.sock")
	first, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	serve := func(l net.Listener) { context.AfterFunc(ctx, func() { l.Close() }) }
	serve(first)
	kept := make(chan error, 1)
	go func() { kept <- socket.Keep(ctx, first, path, serve) }()

	for range 300 {
		// Not empty: the socket was faster.
		if err := os.RemoveAll(filepath.Dir(path)); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			t.Fatal(err)
		}
		for range retry.Every(t.Context(), 100*time.Microsecond) {
			if socket.Alive(path) || len(kept) > 0 {
				break
			}
		}
	}

	cancel()
	if err := <-kept; err != nil {
		t.Error(err)
	}
}

func TestEndpointsAreAbsolutePathsOfUnixSockets(t *testing.T) {
	for in, want := range map[string]string{
		"unix:///run/a.sock": "/run/a.sock",
		"/run/a.sock":        "/run/a.sock",
		"tcp://1.2.3.4:5":    "",
		"unix://a.sock":      "",
		"":                   "",
	} {
		if got, err := socket.Path(in); got != want || (want == "") != (err != nil) {
			t.Errorf("Path(%q) = %q, %v", in, got, err)
		}
	}
}
