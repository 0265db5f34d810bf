package streaming_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

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

		s.set(kind, stream)
	}

	return conn, s
}

// set keeps a stream by the kind that the protocol names.
func (s *streams) set(kind string, stream httpstream.Stream) {
	switch kind {
	case "stdin":
		s.stdin = stream
	case "stdout":
		s.stdout = stream
	case "stderr":
		s.stderr = stream
	case "resize":
		s.resize = stream
	case "error":
		s.status = stream
	}
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
const sized = `
for i in $(seq 400); do
	[ "$(stty size)" = "43 132" ] && break
	sleep 0.05
done
stty size
read x
echo got $x`

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
			if err == nil && strings.TrimSpace(string(r.Stdout)) != want {
				err = fmt.Errorf("processes: %s, want %s", r.Stdout, want)
			}
			return err
		}
	}

	monitortest.Eventually(t, count("1"))
	conn.Close()
	monitortest.Eventually(t, count("0"))
}

// linesOf sends the lines of a stream until it ends.
func linesOf(r io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)

		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			for line := range strings.Lines(string(buf[:n])) {
				lines <- strings.TrimSpace(line)
			}

			if err != nil {
				return
			}
		}
	}()

	return lines
}

func TestAttachSurvivesTheMonitorAndStdinOnceEnds(t *testing.T) {
	n := start(
		t,
		"crun",
		sh("while read x; do echo got $x; done; echo end; exit 6"),
		func(_ *specs.Spec, c *monitor.Container) {
			c.Stdin = true
			c.StdinOnce = true
		},
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
	lines := linesOf(s.stdout)
	io.WriteString(s.stdin, "one\n")
	if got := <-lines; got != "got one" {
		t.Errorf("got %q", got)
	}

	monitortest.KillMonitor(t, n.Config.Socket)

	// Until the attach is back, what is written is in the log only.
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

		// Not a wait: the line is slow, and the command ends long before its output is through.
		time.Sleep(5 * time.Millisecond)
	}

	if got != 3_000_000 {
		t.Errorf("%d bytes came, want 3000000", got)
	}
}
