package kubeletapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	remote "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/trivet-node/trivet/node/kubeletapi"
)

// runtime is a container runtime with the streaming server that real ones use. Its programs: "cat" copies,
// "fail" fails.
type runtime struct {
	cri.RuntimeServiceClient // the calls that are not made here
	streams                  streaming.Server
	containers               []*cri.Container
	logs                     map[string]string
	vanished                 atomic.Bool
}

func (r *runtime) Exec(
	_ context.Context,
	_ string,
	cmd []string,
	in io.Reader,
	out, errOut io.WriteCloser,
	_ bool,
	_ <-chan remote.TerminalSize,
) error {
	if cmd[0] == "fail" {
		fmt.Fprint(errOut, "no luck")
		return fmt.Errorf("failed")
	}
	_, err := io.Copy(out, in)
	return err
}

func (r *runtime) Attach(
	_ context.Context,
	_ string,
	in io.Reader,
	out, _ io.WriteCloser,
	_ bool,
	_ <-chan remote.TerminalSize,
) error {
	_, err := io.Copy(out, in)
	return err
}

func (r *runtime) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := fmt.Fprintf(stream, "port %d", port)
	return err
}

type client struct{ *runtime }

func (c client) Exec(_ context.Context, r *cri.ExecRequest, _ ...grpc.CallOption) (*cri.ExecResponse, error) {
	return c.streams.GetExec(r)
}

func (c client) Attach(
	_ context.Context,
	r *cri.AttachRequest,
	_ ...grpc.CallOption,
) (*cri.AttachResponse, error) {
	return c.streams.GetAttach(r)
}

func (c client) PortForward(
	_ context.Context,
	r *cri.PortForwardRequest,
	_ ...grpc.CallOption,
) (*cri.PortForwardResponse, error) {
	return c.streams.GetPortForward(r)
}

func (c client) ListContainers(
	_ context.Context,
	r *cri.ListContainersRequest,
	_ ...grpc.CallOption,
) (*cri.ListContainersResponse, error) {
	out := &cri.ListContainersResponse{}
	for _, one := range c.containers {
		if one.Labels["io.kubernetes.container.name"] == r.Filter.LabelSelector["io.kubernetes.container.name"] {
			out.Containers = append(out.Containers, one)
		}
	}
	return out, nil
}

func (c client) ListPodSandbox(
	context.Context,
	*cri.ListPodSandboxRequest,
	...grpc.CallOption,
) (*cri.ListPodSandboxResponse, error) {
	return &cri.ListPodSandboxResponse{Items: []*cri.PodSandbox{{Id: "sandbox"}}}, nil
}

func (c client) ContainerStatus(
	_ context.Context,
	r *cri.ContainerStatusRequest,
	_ ...grpc.CallOption,
) (*cri.ContainerStatusResponse, error) {
	for _, one := range c.containers {
		if one.Labels["io.kubernetes.container.name"] == "vanishes" && c.vanished.Swap(true) {
			// it was removed after somebody had found its log
			break
		}

		if one.Id == r.ContainerId {
			return &cri.ContainerStatusResponse{
				Status: &cri.ContainerStatus{Id: one.Id, State: one.State, LogPath: c.logs[one.Id]},
			}, nil
		}
	}

	return nil, status.Errorf(codes.NotFound, "no container %s", r.ContainerId)
}

type pods []*v1.Pod

func (p pods) Pods() []*v1.Pod { return p }

// serve starts the endpoint. Of container c the second instance runs, both of crashes have ended and a third
// is to come, done has ended for good.
func serve(t *testing.T, mods ...func(*kubeletapi.Config)) *url.URL {
	t.Helper()
	dir := t.TempDir()
	r := &runtime{logs: map[string]string{}}
	const ended, runs = cri.ContainerState_CONTAINER_EXITED, cri.ContainerState_CONTAINER_RUNNING
	for i, x := range []struct {
		name  string
		state cri.ContainerState
	}{
		{"c", ended},
		{"c", runs},
		{"crashes", ended},
		{"crashes", ended},
		{"done", ended},
		{"vanishes", runs},
	} {
		id := fmt.Sprintf("id%d", i)
		r.logs[id] = filepath.Join(dir, id+".log")
		line := fmt.Sprintf("2026-01-02T03:04:05Z stdout F line of %s\n", id)
		if err := os.WriteFile(r.logs[id], []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}

		r.containers = append(r.containers, &cri.Container{
			Id:        id,
			State:     x.state,
			CreatedAt: int64(i),
			Labels:    map[string]string{"io.kubernetes.container.name": x.name},
		})
	}

	backend := httptest.NewUnstartedServer(nil)
	config := streaming.DefaultConfig
	config.Addr = backend.Listener.Addr().String()
	var err error
	if r.streams, err = streaming.NewServer(config, r); err != nil {
		t.Fatal(err)
	}

	backend.Config.Handler = r.streams
	backend.Start()
	t.Cleanup(backend.Close)

	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"},
		Spec: v1.PodSpec{
			Containers: []v1.Container{
				{Name: "c"},
				{Name: "waits"},
				{Name: "crashes"},
				{Name: "done"},
				{Name: "vanishes"},
			},
		},
	}

	last := func(id string) v1.ContainerState {
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "runtime://" + id}}
	}
	pod.Status.ContainerStatuses = []v1.ContainerStatus{
		{Name: "c", LastTerminationState: last("id0")},
		{Name: "crashes", LastTerminationState: last("id3")},
		{Name: "done", State: last("id4")},
	}

	// for its certificate
	certs := httptest.NewTLSServer(nil)
	certs.Close()
	cfg := kubeletapi.Config{
		Pods:    pods{pod},
		Runtime: client{r},
		Guard:   func(h http.Handler) http.Handler { return h },
		Log:     slog.New(slog.DiscardHandler),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &certs.TLS.Certificates[0],
				nil
		},
	}

	for _, mod := range mods {
		mod(&cfg)
	}

	server := kubeletapi.New(cfg)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	return &url.URL{Scheme: "https", Host: listener.Addr().String()}
}

var insecure = &rest.Config{TLSClientConfig: rest.TLSClientConfig{Insecure: true}}

func get(t *testing.T, base *url.URL, path string) (int, string) {
	t.Helper()
	c := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true,
		},
	}

	r, err := c.Get(base.String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()

	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}

	return r.StatusCode, string(body)
}

func TestLogsAndState(t *testing.T) {
	base := serve(t)
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/healthz", 200, "ok"},
		{"/containerLogs/ns/p/c", 200, "line of id1\n"},
		{"/containerLogs/ns/p/c?previous=true", 200, "line of id0\n"},
		{"/containerLogs/ns/p/crashes?previous=true", 200, "line of id3\n"},
		{"/containerLogs/ns/p/crashes", 200, "line of id3\n"},
		{"/containerLogs/ns/p/done", 200, "line of id4\n"},
		{
			"/containerLogs/ns/p/done?previous=true",
			400,
			`previous terminated container "done" in pod "p" not found`,
		},
		{
			"/containerLogs/ns/p/c?timestamps=true&tailLines=1",
			200,
			"2026-01-02T03:04:05.000000000Z line of id1\n",
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
	if code, body := get(t, serve(t), "/containerLogs/ns/p/vanishes?follow=true"); code != 200 ||
		body != "line of id5\n" {
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
