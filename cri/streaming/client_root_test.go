package streaming_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// pipes are those that this process, which is the server, has open.
func pipes(t *testing.T) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range list {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			all[to] = true
		}
	}
	return all
}

// A container that says nothing gives no write that would fail: the connection itself has to tell that its client is gone.
func TestAttachToAQuietContainerEndsWithItsClient(t *testing.T) {
	n := start(t, "crun", idle, func(_ *specs.Spec, c *monitor.Container) { c.Stdin = true })
	before := pipes(t)
	open := func(want int) func() error {
		return func() error {
			now := pipes(t)
			maps.DeleteFunc(now, func(pipe string, _ bool) bool { return before[pipe] })
			if len(now) != want {
				return fmt.Errorf("%d pipes are open, want %d", len(now), want)
			}
			return nil
		}
	}
	for _, request := range []*runtimeapi.AttachRequest{
		{ContainerId: "c", Stdout: true, Stderr: true},
		{ContainerId: "c", Stdin: true, Stdout: true, Stderr: true},
	} {
		for _, v := range []string{"SPDY", "v5.channel.k8s.io", "v4.channel.k8s.io"} {
			resp, err := n.server.Attach(request)
			if err != nil {
				t.Fatal(err)
			}
			var hangUp func() error
			if v == "SPDY" {
				streams := []string{"stdout", "stderr"}
				if request.Stdin {
					streams = slices.Insert(streams, 0, "stdin")
				}
				var conn httpstream.Connection
				conn, _ = dial(t, resp.Url, streams...)
				hangUp = conn.Close
			} else {
				hangUp = dialWebSocket(t, resp.Url, v).NetConn().Close
			}
			monitortest.Eventually(t, open(2)) // stdout and stderr
			if err := hangUp(); err != nil {
				t.Error(err)
			}
			monitortest.Eventually(t, open(0))
			if t.Failed() {
				t.Fatalf("%s, stdin %t", v, request.Stdin)
			}
		}
	}
}

func TestWebSocketMessageOfAnySizeIsNotHeld(t *testing.T) {
	n := start(t, "crun", idle, nil)
	resp, err := n.server.Exec(&runtimeapi.ExecRequest{ContainerId: "c", Cmd: sh("head -c 100000 | wc -c; sleep 1000"), Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	conn := dialWebSocket(t, resp.Url, "v5.channel.k8s.io")
	message, err := conn.NextWriter(websocket.BinaryMessage) // and it never ends
	if err != nil {
		t.Fatal(err)
	}
	if _, err := message.Write(make([]byte, 200_000)); err != nil { // the first byte is stdin's channel
		t.Fatal(err)
	}
	_, answer, err := conn.ReadMessage()
	if err != nil || strings.TrimSpace(string(answer[1:])) != "100000" {
		t.Errorf("answer %q, %v", answer, err)
	}
}
