package streaming_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/streaming"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(monitortest.Main(m)) }

// node is a monitor, a streaming server, and one container named "c".
type node struct {
	*monitortest.Env
	client *monitor.Client
	server *streaming.Server
	netns  string
}

func start(t *testing.T, runtime string, args []string, change func(*specs.Spec, *monitor.Container)) *node {
	t.Helper()
	n := &node{Env: monitortest.New(t)}
	var err error
	if n.client, err = monitor.Connect(t.Context(), n.Config); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { n.client.Close() })
	c := n.Container(t, "c", n.Runtime(t, runtime), args, change)
	if _, err := n.client.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := n.client.Delete(context.WithoutCancel(t.Context()), "c"); err != nil {
			t.Error(err)
		}
	})
	if err := n.client.Start(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}

	process := specs.Process{Cwd: "/", Env: []string{"PATH=/bin"}}
	n.server, err = streaming.New(streaming.Config{
		Addr:    "127.0.0.1:0",
		Monitor: n.client,
		Process: func(_ context.Context, id string) (specs.Process, error) { return process, nil },
		Netns:   func(context.Context, string) (string, error) { return n.netns, nil },
	})
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	return n
}

var idle = []string{"/bin/sleep", "1000"}

func sh(script string) []string { return []string{"/bin/sh", "-c", script} }

func runtimes(t *testing.T, f func(t *testing.T, runtime string)) {
	for _, name := range []string{"crun", "runc"} {
		t.Run(name, func(t *testing.T) { f(t, name) })
	}
}

func TestExecSync(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		n := start(t, runtime, idle, nil)
		r, err := n.server.ExecSync(t.Context(), "c", sh("echo out; echo err >&2; exit 3"), time.Minute)
		if err != nil || string(r.Stdout) != "out\n" || string(r.Stderr) != "err\n" || r.Exit.Code != 3 {
			t.Errorf("got %+v, %v", r, err)
		}

		r, err = n.server.ExecSync(t.Context(), "c", sh("kill -9 $$"), 0)
		if err != nil || r.Exit.Code != 137 {
			t.Errorf("got %+v, %v, want 137", r, err)
		}

		if _, err = n.server.ExecSync(t.Context(), "c", []string{"/bin/absent"}, 0); err == nil ||
			!strings.Contains(err.Error(), "absent") {
			t.Errorf("error %v does not name the program", err)
		}

		r, err = n.server.ExecSync(t.Context(), "c", sh("sleep 1000 & echo started"), 10*time.Second)
		if err != nil || string(r.Stdout) != "started\n" {
			t.Errorf("a process left behind: got %+v, %v", r, err)
		}
	})
}

func TestExecSyncTimeoutKillsTheTree(t *testing.T) {
	n := start(t, "crun", idle, nil)
	_, err := n.server.ExecSync(
		t.Context(),
		"c",
		sh("sh -c 'sleep 4242 & sleep 4242; true' ; true"),
		300*time.Millisecond,
	)
	if !errors.Is(err, streaming.ErrTimeout) {
		t.Errorf("error %v, want a timeout", err)
	}

	monitortest.Eventually(t, func() error {
		r, err := n.server.ExecSync(t.Context(), "c", sh("ps | grep -c '[s]leep 4242'"), time.Minute)
		if err != nil || strings.TrimSpace(string(r.Stdout)) != "0" {
			return fmt.Errorf("still running: %s, %v", r.Stdout, err)
		}

		return nil
	})
}

func TestExecSyncOutputIsCapped(t *testing.T) {
	n := start(t, "crun", idle, nil)
	r, err := n.server.ExecSync(
		t.Context(),
		"c",
		sh("head -c 12000000 /dev/zero; head -c 12000000 /dev/zero >&2"),
		time.Minute,
	)
	if err != nil || len(r.Stdout) != 12_000_000 || len(r.Stdout)+len(r.Stderr) != streaming.MaxOutput {
		t.Errorf("got %d and %d bytes, %v", len(r.Stdout), len(r.Stderr), err)
	}
}

// streams are a client's ends of a SPDY connection.
type streams struct{ stdin, stdout, stderr, resize, status httpstream.Stream }

func dial(t *testing.T, url string, want ...string) (httpstream.Connection, *streams) {
	t.Helper()
	rt, err := spdy.NewRoundTripper(nil)
	if err != nil {
		t.Fatal(err)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}

	req.Header.Set(httpstream.HeaderProtocolVersion, "v4.channel.k8s.io")
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	conn, err := rt.NewConnection(resp)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	s := &streams{}
	for _, kind := range append([]string{"error"}, want...) {
		stream, err := conn.CreateStream(http.Header{"Streamtype": {kind}})
		if err != nil {
			t.Fatal(err)
		}

		*map[string]*httpstream.Stream{
			"stdin":  &s.stdin,
			"stdout": &s.stdout,
			"stderr": &s.stderr,
			"resize": &s.resize,
			"error":  &s.status,
		}[kind] = stream
	}

	return conn, s
}

func read(t *testing.T, s io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(s)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

func TestExecOverSPDY(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		n := start(t, runtime, idle, nil)
		resp, err := n.server.Exec(&runtimeapi.ExecRequest{
			ContainerId: "c",
			Cmd:         sh("cat; echo err >&2; exit 4"),
			Stdin:       true,
			Stdout:      true,
			Stderr:      true,
		})
		if err != nil {
			t.Fatal(err)
		}

		_, s := dial(t, resp.Url, "stdin", "stdout", "stderr")
		big := strings.Repeat("0123456789abcdef", 1<<16)
		go func() { io.WriteString(s.stdin, big); s.stdin.Close() }()
		if got := read(t, s.stdout); got != big {
			t.Errorf("%d bytes came back, want %d", len(got), len(big))
		}
		if got := read(t, s.stderr); got != "err\n" {
			t.Errorf("stderr %q", got)
		}

		var status struct {
			Status  string
			Details struct{ Causes []struct{ Message string } }
		}
		if err := json.Unmarshal([]byte(read(t, s.status)), &status); err != nil ||
			len(status.Details.Causes) != 1 || status.Details.Causes[0].Message != "4" {
			t.Errorf("status %+v, %v", status, err)
		}
	})
}

// sized waits for the size that a test sets: it comes on a stream of its own, before or after the command
// starts.
const sized = `for i in $(seq 400); do [ "$(stty size)" = "43 132" ] && break; sleep 0.05; done; stty size; read x; echo got $x`

func TestExecWithTerminalOverSPDY(t *testing.T) {
	runtimes(t, func(t *testing.T, runtime string) {
		n := start(t, runtime, idle, nil)
		resp, err := n.server.Exec(&runtimeapi.ExecRequest{
			ContainerId: "c",
			Cmd:         sh(sized),
			Stdin:       true,
			Stdout:      true,
			Tty:         true,
		})
		if err != nil {
			t.Fatal(err)
		}

		_, s := dial(t, resp.Url, "stdin", "stdout", "resize")
		if err := json.NewEncoder(s.resize).Encode(map[string]int{"Width": 132, "Height": 43}); err != nil {
			t.Fatal(err)
		}

		io.WriteString(s.stdin, "hello\n")
		if got := read(t, s.stdout); !strings.Contains(got, "43 132") || !strings.Contains(got, "got hello") {
			t.Errorf("terminal shows %q", got)
		}
	})
}

func TestClientThatGoesHangsUpItsTerminal(t *testing.T) {
	n := start(t, "crun", idle, nil)
	resp, err := n.server.Exec(&runtimeapi.ExecRequest{
		ContainerId: "c",
		Cmd:         sh("sleep 5151"),
		Stdin:       true,
		Stdout:      true,
		Tty:         true,
	})
	if err != nil {
		t.Fatal(err)
	}

	conn, _ := dial(t, resp.Url, "stdin", "stdout", "resize")
	count := func(want string) func() error {
		return func() error {
			r, err := n.server.ExecSync(t.Context(), "c", sh("ps | grep -c '[s]leep 5151'"), time.Minute)
			if err != nil || strings.TrimSpace(string(r.Stdout)) != want {
				return fmt.Errorf("processes: %s, %v, want %s", r.Stdout, err, want)
			}

			return nil
		}
	}

	monitortest.Eventually(t, count("1"))
	conn.Close()
	monitortest.Eventually(t, count("0"))
}

func TestAttachSurvivesTheMonitorAndStdinOnceEnds(t *testing.T) {
	n := start(
		t,
		"crun",
		sh("while read x; do echo got $x; done; echo end; exit 6"),
		func(_ *specs.Spec, c *monitor.Container) { c.Stdin, c.StdinOnce = true, true },
	)

	resp, err := n.server.Attach(&runtimeapi.AttachRequest{
		ContainerId: "c",
		Stdin:       true,
		Stdout:      true,
		Stderr:      true,
	})
	if err != nil {
		t.Fatal(err)
	}

	_, s := dial(t, resp.Url, "stdin", "stdout", "stderr")
	lines := make(chan string)
	go func() {
		defer close(lines)

		buf := make([]byte, 4096)
		for {
			k, err := s.stdout.Read(buf)
			for line := range strings.Lines(string(buf[:k])) {
				lines <- strings.TrimSpace(line)
			}

			if err != nil {
				return
			}
		}
	}()

	io.WriteString(s.stdin, "one\n")
	if got := <-lines; got != "got one" {
		t.Errorf("got %q", got)
	}

	monitortest.KillMonitor(t, n.Config.Socket)

	// until the attach is back: what is written before that is in the log only
	monitortest.Eventually(t, func() error {
		io.WriteString(s.stdin, "two\n")
		select {
		case got := <-lines:
			if got != "got two" {
				t.Errorf("got %q", got)
			}

			return nil

		case <-time.After(100 * time.Millisecond):
			return errors.New("attach is not back")
		}
	})

	s.stdin.Close()
	last := ""
	for line := range lines {
		last = line
	}

	if last != "end" {
		t.Errorf("last line %q, want end", last)
	}
	if exit, err := n.client.Wait(t.Context(), "c"); err != nil || exit.Code != 6 {
		t.Errorf("exit %+v, %v", exit, err)
	}
}

func TestPortForward(t *testing.T) {
	n := start(t, "crun", idle, nil)
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		n.netns = testenv.Netns(t)
		port := echoServer(t, n.netns, address)
		resp, err := n.server.PortForward(&runtimeapi.PortForwardRequest{
			PodSandboxId: "p",
			Port:         []int32{int32(port)},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := forward(t, resp.Url, port, "hello"); got != "hello" {
			t.Errorf("%s: got %q", address, got)
		}
	}
}

// echoServer listens inside a network namespace and sends back what one client sends.
func echoServer(t *testing.T, netns, address string) int {
	t.Helper()
	var l net.Listener
	err := namespace.Do(func() (err error) {
		if err := loopbackUp(); err != nil {
			return err
		}

		l, err = net.Listen("tcp", address)
		return err
	}, netns)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()

		io.Copy(conn, conn)
	}()

	return l.Addr().(*net.TCPAddr).Port
}

func forward(t *testing.T, url string, port int, text string) string {
	t.Helper()
	rt, err := spdy.NewRoundTripper(nil)
	if err != nil {
		t.Fatal(err)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}

	req.Header.Set(httpstream.HeaderProtocolVersion, "portforward.k8s.io")
	resp, err := (&http.Client{Transport: rt}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	conn, err := rt.NewConnection(resp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	headers := http.Header{"Port": {fmt.Sprint(port)}, "Requestid": {"1"}, "Streamtype": {"error"}}
	errors, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}

	errors.Close()
	headers.Set("Streamtype", "data")
	data, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}

	io.WriteString(data, text)
	data.Close()
	got := read(t, data)
	if msg := read(t, errors); msg != "" {
		t.Error(msg)
	}

	return got
}

func TestSlowClientGetsAllOutputOfAnEndedCommand(t *testing.T) {
	n := start(t, "crun", idle, nil)
	resp, err := n.server.Exec(&runtimeapi.ExecRequest{
		ContainerId: "c",
		Cmd:         sh("head -c 3000000 /dev/zero"),
		Stdout:      true,
	})
	if err != nil {
		t.Fatal(err)
	}

	_, s := dial(t, resp.Url, "stdout")
	got, buf := 0, make([]byte, 100_000)
	for {
		k, err := s.stdout.Read(buf)
		got += k
		if err != nil {
			break
		}

		// a slow line; the command ends long before its output is through
		time.Sleep(5 * time.Millisecond)
	}

	if got != 3_000_000 {
		t.Errorf("%d bytes came, want 3000000", got)
	}
}
