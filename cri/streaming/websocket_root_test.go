package streaming_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/internal/testenv"
)

func dialWebSocket(t *testing.T, url, protocol string) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{Subprotocols: []string{protocol}}
	conn, resp, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(url, "http"), nil)
	if err != nil {
		t.Fatalf("%v (%v)", err, resp)
	}

	resp.Body.Close()
	t.Cleanup(func() { conn.Close() })
	if conn.Subprotocol() != protocol {
		t.Fatalf("subprotocol %q", conn.Subprotocol())
	}

	return conn
}

// channels reads a v5 connection to its end.
func channels(t *testing.T, conn *websocket.Conn) map[byte]string {
	t.Helper()
	got := map[byte]string{}
	for {
		_, data, err := conn.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}

		got[data[0]] += string(data[1:])
	}
}

func TestExecOverWebSocketV5(t *testing.T) {
	n := start(t, "crun", idle, nil)
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

	conn := dialWebSocket(t, resp.Url, "v5.channel.k8s.io")

	// stdin, and its end
	for _, message := range []string{"\x00hello", "\xff\x00"} {
		if err := conn.WriteMessage(websocket.BinaryMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}

	got := channels(t, conn)
	if got[1] != "hello" || got[2] != "err\n" {
		t.Errorf("got %q", got)
	}

	var status struct {
		Status, Reason string
		Details        struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal([]byte(got[3]), &status); err != nil || len(status.Details.Causes) != 1 ||
		status.Details.Causes[0].Message != "4" {
		t.Errorf("status %q: %+v, %v", got[3], status, err)
	}

	// a token is good once
	for _, protocol := range []string{"v5.channel.k8s.io", "v4.channel.k8s.io"} {
		d := websocket.Dialer{Subprotocols: []string{protocol}}
		_, again, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(resp.Url, "http"), nil)
		if err == nil || again.StatusCode != http.StatusNotFound {
			t.Errorf("%s: a used token: %v %v", protocol, err, again)
		}
	}
}

func TestAttachOverWebSocketV5WithTerminal(t *testing.T) {
	n := start(
		t,
		"crun",
		sh(sized),
		func(_ *specs.Spec, c *monitor.Container) { c.TTY, c.Stdin = true, true },
	)

	resp, err := n.server.Attach(&runtimeapi.AttachRequest{
		ContainerId: "c",
		Stdin:       true,
		Stdout:      true,
		Tty:         true,
	})
	if err != nil {
		t.Fatal(err)
	}

	conn := dialWebSocket(t, resp.Url, "v5.channel.k8s.io")
	conn.WriteMessage(websocket.BinaryMessage, []byte("\x04"+`{"Width":132,"Height":43}`))
	conn.WriteMessage(websocket.BinaryMessage, []byte("\x00hello\n"))
	got := channels(t, conn)
	if !strings.Contains(got[1], "43 132") || !strings.Contains(got[1], "got hello") ||
		!strings.Contains(got[3], "Success") {
		t.Errorf("got %q", got)
	}
}

// wsConn is a byte stream inside a WebSocket.
type wsConn struct {
	net.Conn
	ws  *websocket.Conn
	now io.Reader
}

func (c *wsConn) Read(p []byte) (int, error) {
	for {
		if c.now == nil {
			_, r, err := c.ws.NextReader()
			if err != nil {
				return 0, io.EOF
			}

			c.now = r
		}

		n, err := c.now.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}

		c.now = nil
	}
}

func (c *wsConn) Write(p []byte) (int, error) {
	return len(p), c.ws.WriteMessage(websocket.BinaryMessage, p)
}

func TestPortForwardInsideWebSocket(t *testing.T) {
	n := start(t, "crun", idle, nil)
	n.netns = testenv.Netns(t)
	port := echoServer(t, n.netns, "127.0.0.1:0")
	resp, err := n.server.PortForward(&runtimeapi.PortForwardRequest{
		PodSandboxId: "p",
		Port:         []int32{int32(port)},
	})
	if err != nil {
		t.Fatal(err)
	}

	ws := dialWebSocket(t, resp.Url, "SPDY/3.1+portforward.k8s.io")
	conn, err := spdy.NewClientConnection(&wsConn{Conn: ws.NetConn(), ws: ws})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	headers := http.Header{"Port": {fmt.Sprint(port)}, "Requestid": {"1"}, "Streamtype": {"error"}}
	problems, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}

	problems.Close()
	headers.Set("Streamtype", "data")
	data, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}

	io.WriteString(data, "hello")
	data.Close()
	if got := read(t, data); got != "hello" {
		t.Errorf("got %q", got)
	}
	if msg := read(t, problems); msg != "" {
		t.Error(msg)
	}
}
