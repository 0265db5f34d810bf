package kubeletapi_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	remote "k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/kubeletapi"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// programs is what runs in containers: "fail" fails, everything else copies its input to its output.
type programs struct{}

func (programs) Exec(
	_ context.Context, _ string, cmd []string, in io.Reader, out, errOut io.WriteCloser,
	_ bool, _ <-chan remote.TerminalSize,
) error {
	if cmd[0] == "fail" {
		fmt.Fprint(errOut, "no luck")
		return errors.New("failed")
	}
	_, err := io.Copy(out, in)
	return err
}

func (programs) Attach(
	_ context.Context, _ string, in io.Reader, out, _ io.WriteCloser,
	_ bool, _ <-chan remote.TerminalSize,
) error {
	_, err := io.Copy(out, in)
	return err
}

func (programs) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	_, err := fmt.Fprintf(stream, "port %d", port)
	return err
}

// streams is the streaming server that real runtimes use.
func streams(t *testing.T) streaming.Server {
	t.Helper()
	backend := httptest.NewUnstartedServer(nil)
	config := streaming.DefaultConfig
	config.Addr = backend.Listener.Addr().String()
	server, err := streaming.NewServer(config, programs{})
	if err != nil {
		t.Fatal(err)
	}

	backend.Config.Handler = server
	backend.Start()
	t.Cleanup(backend.Close)
	return server
}

type pods []*v1.Pod

func (p pods) Pods() []*v1.Pod { return p }

// node is an endpoint with a runtime and one pod, ns/p. Of its container c the second instance runs, both of
// crashes have ended and a third is to come, done has ended for good, waits has not started.
type node struct {
	t       *testing.T
	runtime *runtimetest.Server
	client  *runtime.Client
	pod     *v1.Pod
	base    *url.URL // of the endpoint

	config  criconfig.Node
	sandbox *runtime.SandboxConfig
	ids     map[string]string // by "container/attempt"
}

// serve starts the endpoint.
func serve(t *testing.T, mods ...func(*kubeletapi.Config)) *url.URL {
	t.Helper()
	return newNode(t, mods...).base
}

func newNode(t *testing.T, mods ...func(*kubeletapi.Config)) *node {
	t.Helper()
	n := &node{
		t:       t,
		runtime: runtimetest.Start(t),
		config:  criconfig.Node{LogRoot: t.TempDir()},
		ids:     map[string]string{},
	}

	n.runtime.Stream(streams(t))
	conn, err := socket.Dial(n.runtime.Socket)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	n.client = runtime.New(conn, conn, slog.New(slog.DiscardHandler))

	n.pod = &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u"}}
	for _, name := range []string{"c", "waits", "crashes", "done"} {
		n.pod.Spec.Containers = append(n.pod.Spec.Containers, v1.Container{Name: name})
	}

	n.start()
	n.pod.Status.ContainerStatuses = []v1.ContainerStatus{
		{Name: "c", LastTerminationState: n.ended("c/0")},
		{Name: "crashes", LastTerminationState: n.ended("crashes/1")},
		{Name: "done", State: n.ended("done/0")},
	}

	n.base = n.listen(mods)
	return n
}

func (n *node) start() {
	n.t.Helper()
	var err error
	if n.sandbox, err = criconfig.Sandbox(n.config, n.pod, 0, ""); err != nil {
		n.t.Fatal(err)
	}

	sandbox, err := n.client.RunSandbox(n.t.Context(), n.sandbox, "")
	if err != nil {
		n.t.Fatal(err)
	}

	n.instance(sandbox, "c", 0, "exit:0")
	n.instance(sandbox, "c", 1, "run")
	n.instance(sandbox, "crashes", 0, "exit:1")
	n.instance(sandbox, "crashes", 1, "exit:1")
	n.instance(sandbox, "done", 0, "exit:0")
}

// instance starts an instance of a container, whose log has one line with its name.
func (n *node) instance(sandbox, name string, attempt uint32, image string) {
	n.t.Helper()
	config, err := criconfig.CreateContainer(n.config, n.pod, criconfig.Container{
		Spec:     podspec.Find(n.pod, name),
		Attempt:  attempt,
		ImageRef: image,
	})
	if err != nil {
		n.t.Fatal(err)
	}

	id, err := n.client.CreateContainer(n.t.Context(), sandbox, config, n.sandbox)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.client.StartContainer(n.t.Context(), id); err != nil {
		n.t.Fatal(err)
	}

	key := fmt.Sprintf("%s/%d", name, attempt)
	n.ids[key] = id
	log := filepath.Join(n.sandbox.LogDirectory, config.LogPath)
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		n.t.Fatal(err)
	}

	line := fmt.Sprintf("2026-01-02T03:04:05Z stdout F line of %s\n", key)
	if err := os.WriteFile(log, []byte(line), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// ended is the state of an instance that has ended, as the API shows it.
func (n *node) ended(key string) v1.ContainerState {
	return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: "runtime://" + n.ids[key]}}
}

func (n *node) listen(mods []func(*kubeletapi.Config)) *url.URL {
	n.t.Helper()

	// for its certificate
	certs := httptest.NewTLSServer(nil)
	certs.Close()
	cfg := kubeletapi.Config{
		Pods:    pods{n.pod},
		Runtime: n.client,
		Guard:   func(h http.Handler) http.Handler { return h },
		Log:     slog.New(slog.DiscardHandler),
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &certs.TLS.Certificates[0], nil
		},
	}

	for _, mod := range mods {
		mod(&cfg)
	}

	server := kubeletapi.New(cfg)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	n.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})

	return &url.URL{Scheme: "https", Host: listener.Addr().String()}
}

// get answers as the endpoint does.
func get(t *testing.T, base *url.URL, path string) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}

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
