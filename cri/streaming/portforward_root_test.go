package streaming_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// podServer serves each connection to a port on the loopback of a network namespace.
func podServer(t *testing.T, netns string, serve func(net.Conn)) (port int) {
	t.Helper()
	var l net.Listener
	err := namespace.Do(func() (err error) {
		if err := loopbackUp(); err != nil {
			return err
		}

		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}, netns)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}

			go func() { defer conn.Close(); serve(conn) }()
		}
	}()

	return l.Addr().(*net.TCPAddr).Port
}

// forwarding opens a connection for port-forward.
func forwarding(t *testing.T, n *node, port int) httpstream.Connection {
	t.Helper()
	ports := []int32{int32(port)}
	at, err := n.server.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "p", Port: ports})
	if err != nil {
		t.Fatal(err)
	}

	rt, err := spdy.NewRoundTripper(nil)
	if err != nil {
		t.Fatal(err)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.Url, nil)
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

	t.Cleanup(func() { conn.Close() })
	return conn
}

// connection opens the streams of one connection to port.
func connection(
	t *testing.T, conn httpstream.Connection, port, request int,
) (data, problems httpstream.Stream) {
	t.Helper()
	headers := http.Header{
		"Port":       {fmt.Sprint(port)},
		"Requestid":  {fmt.Sprint(request)},
		"Streamtype": {"error"},
	}

	problems, err := conn.CreateStream(headers)
	if err != nil {
		t.Fatal(err)
	}

	problems.Close()
	headers.Set("Streamtype", "data")
	if data, err = conn.CreateStream(headers); err != nil {
		t.Fatal(err)
	}

	return data, problems
}

func TestInputThatThePodDoesNotReadStopsNoOtherConnection(t *testing.T) {
	n := start(t, "crun", idle, nil)
	n.netns = testenv.Netns(t)
	port := podServer(t, n.netns, func(c net.Conn) {
		line := make([]byte, 5)
		if io.ReadFull(c, line); string(line) == "short" {
			io.WriteString(c, "answer")
		}
	})

	conn := forwarding(t, n, port)

	// as many as the library has workers, and one
	for i := range 6 {
		large, problems := connection(t, conn, port, 2*i)
		go func() {
			for range 30 << 10 {
				if _, err := large.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}()

		if got := read(t, problems); !strings.Contains(got, "pod p") {
			t.Errorf("the client gets the error %q", got)
		}

		short, problems := connection(t, conn, port, 2*i+1)
		io.WriteString(short, "short")
		if got := read(t, short); got != "answer" {
			t.Errorf("a later connection gets %q", got)
		}

		short.Close()
		if got := read(t, problems); got != "" {
			t.Errorf("a later connection: %s", got)
		}
	}
}

func TestForwardedConnectionsEndWithTheirClient(t *testing.T) {
	n := start(t, "crun", idle, nil)
	n.netns = testenv.Netns(t)
	port := podServer(t, n.netns, func(c net.Conn) {
		io.WriteString(c, "hello")

		// it says nothing more, and stays when its client has nothing more to say
		<-t.Context().Done()
	})

	before := descriptors(t)
	conn := forwarding(t, n, port)
	data, _ := connection(t, conn, port, 1)
	if _, err := io.ReadFull(data, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}

	conn.Close()
	monitortest.Eventually(t, func() error {
		if now := descriptors(t); len(now) != len(before)+1 {
			return fmt.Errorf("%d descriptors are open, want %d and the pod's", len(now), len(before))
		}

		return nil
	})
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
