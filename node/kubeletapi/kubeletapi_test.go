package kubeletapi_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

var insecure = &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}

func TestLogsAndState(t *testing.T) {
	base := serve(t)
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/healthz", 200, "ok"},
		{"/containerLogs/ns/p/c", 200, "line of c/1\n"},
		{"/containerLogs/ns/p/c?previous=true", 200, "line of c/0\n"},
		{"/containerLogs/ns/p/crashes?previous=true", 200, "line of crashes/1\n"},
		{"/containerLogs/ns/p/crashes", 200, "line of crashes/1\n"},
		{"/containerLogs/ns/p/done", 200, "line of done/0\n"},
		{
			"/containerLogs/ns/p/done?previous=true",
			400,
			`previous terminated container "done" in pod "p" not found`,
		},
		{
			"/containerLogs/ns/p/c?timestamps=true&tailLines=1",
			200,
			"2026-01-02T03:04:05.000000000Z line of c/1\n",
		},
		{"/containerLogs/ns/p/c?limitBytes=4", 200, "line"},
		{"/containerLogs/ns/p/c?tailLines=-1", 400, "tailLines"},
		{
			"/containerLogs/ns/p/waits",
			400,
			`container "waits" in pod "p" is waiting to start: ContainerCreating`,
		},
		{
			"/containerLogs/ns/p/waits?previous=true",
			400,
			`previous terminated container "waits" in pod "p" not found`,
		},
		{"/containerLogs/ns/p/none", 400, "not valid"},
		{"/containerLogs/ns/other/c", 404, "does not exist"},
		{"/exec/ns/p/waits?command=x&output=1", 404, "not found"},
		{"/exec/ns/p/c?command=x", 400, "at least 1 of stdin"},
		{"/stats/summary", 501, ""},
		{"/nothing", 404, ""},
	} {
		code, body := get(t, base, c.path)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, body, c.code, c.want)
		}
	}

	var list v1.PodList
	if _, body := get(t, base, "/pods"); json.Unmarshal([]byte(body), &list) != nil ||
		len(list.Items) != 1 || list.Kind != "PodList" {
		t.Errorf("pods: %q", body)
	}
}

func TestFollowingALogEndsWithItsContainer(t *testing.T) {
	for name, end := range map[string]func(n *node) error{
		"exited": func(n *node) error {
			n.runtime.Exit("c", 0)
			return nil
		},
		"removed": func(n *node) error {
			return n.client.RemoveContainer(t.Context(), n.ids["c/1"])
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			c := &http.Client{Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
				DisableKeepAlives: true,
			}}

			r, err := c.Get(n.base.String() + "/containerLogs/ns/p/c?follow=true")
			if err != nil {
				t.Fatal(err)
			}
			defer r.Body.Close()

			// The first line has come: the log is being followed.
			lines := bufio.NewReader(r.Body)
			if line, err := lines.ReadString('\n'); err != nil || line != "line of c/1\n" {
				t.Fatalf("%q, %v", line, err)
			}
			if err := end(n); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

func TestCommandsRunToTheirEnd(t *testing.T) {
	n := newNode(t)
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/run/ns/p/c?cmd=true":      {200, "outerr"},
		"/run/ns/p/c?cmd=false":     {500, "command terminated with exit code 1\n"},
		"/run/ns/p/c":               {400, "cmd is empty\n"},
		"/run/ns/p/waits?cmd=true":  {404, "container not found (\"waits\")\n"},
		"/run/ns/p/c?cmd=echo+many": {200, ""},
	} {
		if code, body := post(t, n.base, path); code != want.code || body != want.text {
			t.Errorf("%s: %d %q, want %d %q", path, code, body, want.code, want.text)
		}
	}
}

func TestAttachOverSPDY(t *testing.T) {
	u := serve(t).JoinPath("attach/ns/p/u/c")
	u.RawQuery = "input=1&output=1"
	executor, err := remotecommand.NewSPDYExecutor(insecure, "POST", u)
	if err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	err = executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{
		Stdin:  strings.NewReader("hello"),
		Stdout: &out,
	})
	if err != nil || out.String() != "hello" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestRuntimeThatHasNoStreamLeftIsTooManyRequests(t *testing.T) {
	n := newNode(t)
	n.runtime.FailOn("Exec", status.Error(codes.ResourceExhausted, "too many streams"))
	code, body := get(t, n.base, "/exec/ns/p/c?command=x&output=1")
	if code != http.StatusTooManyRequests || !strings.Contains(body, "too many streams") {
		t.Errorf("%d %q", code, body)
	}
}

func TestExecOverSPDY(t *testing.T) {
	base := serve(t)
	u := base.JoinPath("exec/ns/p/c")
	u.RawQuery = "command=cat&input=1&output=1&error=1"
	executor, err := remotecommand.NewSPDYExecutor(insecure, "POST", u)
	if err != nil {
		t.Fatal(err)
	}

	var out bytes.Buffer
	input := strings.Repeat("0123456789", 100_000)
	err = executor.StreamWithContext(
		t.Context(),
		remotecommand.StreamOptions{Stdin: strings.NewReader(input), Stdout: &out, Stderr: io.Discard},
	)
	if err != nil || out.String() != input {
		t.Errorf("%v, %d bytes came back of %d", err, out.Len(), len(input))
	}

	u.RawQuery = "command=fail&output=1&error=1"
	executor, err = remotecommand.NewSPDYExecutor(insecure, "POST", u)
	if err != nil {
		t.Fatal(err)
	}

	var errOut bytes.Buffer
	if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{
		Stdout: io.Discard,
		Stderr: &errOut,
	}); err == nil || errOut.String() != "no luck" {
		t.Errorf("a failing command: %v, %q", err, errOut.String())
	}
}

// TestExecOverWebSocket speaks the channel protocol of WebSocket clients by hand: the first byte of a message
// is the stream.
func TestExecOverWebSocket(t *testing.T) {
	u := serve(t).JoinPath("exec/ns/p/c")
	u.Scheme, u.RawQuery = "wss", "command=cat&input=1&output=1"
	dialer := websocket.Dialer{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Subprotocols:    []string{"v4.channel.k8s.io"},
	}

	conn, response, err := dialer.Dial(u.String(), http.Header{"Origin": {"https://" + u.Host}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	if response.StatusCode != http.StatusSwitchingProtocols || conn.Subprotocol() != "v4.channel.k8s.io" {
		t.Errorf("%d, protocol %q", response.StatusCode, conn.Subprotocol())
	}
	if err := conn.WriteMessage(websocket.BinaryMessage, []byte("\x00hello")); err != nil {
		t.Fatal(err)
	}

	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if string(message) == "\x01hello" {
			return
		}
		if len(message) > 1 {
			t.Fatalf("message %q", message)
		}
	}
}

func TestPortForward(t *testing.T) {
	base := serve(t)
	transport, upgrader, err := spdy.RoundTripperFor(insecure)
	if err != nil {
		t.Fatal(err)
	}

	stop, ready := make(chan struct{}), make(chan struct{})
	dialer := spdy.NewDialer(
		upgrader,
		&http.Client{Transport: transport},
		"POST",
		base.JoinPath("portForward/ns/p"),
	)

	forward, err := portforward.NewOnAddresses(
		dialer,
		[]string{"127.0.0.1"},
		[]string{"0:8080"},
		stop,
		ready,
		io.Discard,
		io.Discard,
	)
	if err != nil {
		t.Fatal(err)
	}

	done := make(chan error, 1)
	go func() { done <- forward.ForwardPorts() }()
	<-ready
	ports, err := forward.GetPorts()
	if err != nil {
		t.Fatal(err)
	}

	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0].Local))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	said, err := io.ReadAll(conn)
	if err != nil || string(said) != "port 8080" {
		t.Errorf("%q, %v", said, err)
	}

	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
