package streaming_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// descriptors are the pipes, sockets and processes that this process, which is the server and its clients,
// has open.
func descriptors(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}

	for _, fd := range list {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil {
			continue
		}

		kind, _, _ := strings.Cut(to, ":")
		if kind == "pipe" || kind == "socket" || strings.Contains(to, "pidfd") {
			all[fd.Name()+" "+to] = true
		}
	}

	return all
}

// nothingMoreThan checks that all that was opened since before was taken is closed.
func nothingMoreThan(t *testing.T, before map[string]bool) func() error {
	return func() error {
		now := descriptors(t)
		maps.DeleteFunc(now, func(fd string, _ bool) bool { return before[fd] })
		if len(now) > 0 {
			return fmt.Errorf("still open: %v", slices.Sorted(maps.Keys(now)))
		}
		return nil
	}
}

var protocols = []string{"SPDY", "v5.channel.k8s.io", "v4.channel.k8s.io"}

// connectAs opens the stream at url and returns how to send to its stdin, if it has one, and how to end it.
func connectAs(t *testing.T, protocol, url string, stdin bool) (send func([]byte), hangUp func() error) {
	t.Helper()
	if protocol == "SPDY" {
		streams := []string{"stdout", "stderr"}
		if stdin {
			streams = slices.Insert(streams, 0, "stdin")
		}

		conn, s := dial(t, url, streams...)
		return func(p []byte) { s.stdin.Write(p) }, conn.Close
	}

	conn := dialWebSocket(t, url, protocol)
	return func(p []byte) {
		conn.WriteMessage(websocket.BinaryMessage, append([]byte{0}, p...))
	}, conn.NetConn().Close
}

// A container that writes nothing makes no write fail: the connection itself has to show that its client is
// gone, also behind input that is not read.
func TestAttachToAQuietContainerEndsWithItsClient(t *testing.T) {
	n := start(t, "crun", idle, func(_ *specs.Spec, c *monitor.Container) { c.Stdin = true })
	for _, protocol := range protocols {
		for _, stdin := range []bool{false, true} {
			for _, sent := range []int{0, 10, 1 << 20} {
				if protocol == "SPDY" && !stdin && sent > 0 {
					// a stream to send on does not exist
					continue
				}

				before := descriptors(t)
				resp, err := n.server.Attach(&runtimeapi.AttachRequest{
					ContainerId: "c",
					Stdin:       stdin,
					Stdout:      true,
					Stderr:      true,
				})
				if err != nil {
					t.Fatal(err)
				}

				send, hangUp := connectAs(t, protocol, resp.Url, stdin)
				if sent > 0 {
					// the larger one waits until the connection ends
					go func() {
						for range sent/1024 + 1 {
							send(make([]byte, min(sent, 1024)))
						}
					}()
				}

				if err := hangUp(); err != nil {
					t.Error(err)
				}

				monitortest.Eventually(t, nothingMoreThan(t, before))
				if t.Failed() {
					t.Fatalf("%s, stdin %t, %d bytes sent", protocol, stdin, sent)
				}
			}
		}
	}
}

func TestExecLeavesNothingOpenWhenItsClientGoes(t *testing.T) {
	n := start(t, "crun", idle, nil)
	for _, protocol := range protocols {
		for _, stdin := range []bool{false, true} {
			before := descriptors(t)
			resp, err := n.server.Exec(&runtimeapi.ExecRequest{
				ContainerId: "c",
				Cmd:         sh("trap '' PIPE; sleep 6161"),
				Stdin:       stdin,
				Stdout:      true,
				Stderr:      true,
			})
			if err != nil {
				t.Fatal(err)
			}

			_, hangUp := connectAs(t, protocol, resp.Url, stdin)
			monitortest.Eventually(t, processes(t, n, "sleep 6161", 1))
			if err := hangUp(); err != nil {
				t.Error(err)
			}

			monitortest.Eventually(t, nothingMoreThan(t, before))

			// The command goes on all the same.
			if err := processes(t, n, "sleep 6161", 1)(); err != nil {
				t.Error(err)
			}

			end := sh("for p in $(pidof sleep); do [ $p = 1 ] || kill $p; done")
			if _, err := n.server.ExecSync(t.Context(), "c", end, time.Minute); err != nil {
				t.Fatal(err)
			}

			monitortest.Eventually(t, processes(t, n, "sleep 6161", 0))
			if t.Failed() {
				t.Fatalf("%s, stdin %t", protocol, stdin)
			}
		}
	}
}

// processes checks how many of the container's processes have this command line.
func processes(t *testing.T, n *node, command string, want int) func() error {
	count := sh("ps | grep -v 'sh -c' | grep -c '[" + command[:1] + "]" + command[1:] + "'")
	return func() error {
		r, err := n.server.ExecSync(t.Context(), "c", count, time.Minute)
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(string(r.Stdout)); got != fmt.Sprint(want) {
			return fmt.Errorf("%s processes %q, want %d", got, command, want)
		}
		return nil
	}
}

func TestWebSocketMessageOfAnySizeIsNotHeld(t *testing.T) {
	n := start(t, "crun", idle, nil)
	resp, err := n.server.Exec(&runtimeapi.ExecRequest{
		ContainerId: "c",
		Cmd:         sh("head -c 100000 | wc -c; sleep 1000"),
		Stdin:       true,
		Stdout:      true,
	})
	if err != nil {
		t.Fatal(err)
	}

	conn := dialWebSocket(t, resp.Url, "v5.channel.k8s.io")

	// and it never ends
	message, err := conn.NextWriter(websocket.BinaryMessage)
	if err != nil {
		t.Fatal(err)
	}

	// the first byte is stdin's channel
	if _, err := message.Write(make([]byte, 200_000)); err != nil {
		t.Fatal(err)
	}

	_, answer, err := conn.ReadMessage()
	if err != nil || strings.TrimSpace(string(answer[1:])) != "100000" {
		t.Errorf("answer %q, %v", answer, err)
	}
}
