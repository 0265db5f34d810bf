package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	cristreaming "k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/portforward"

	"github.com/trivet-node/trivet/internal/namespace"
)

// dialTimeout bounds a connection attempt, which goes to the pod's own loopback.
const dialTimeout = 10 * time.Second

// lastWords is how long one direction of a forwarded connection may go on when the other one has ended.
const lastWords = time.Second

// servePortForward serves a connection whose streams are ports. It calls the library below its Server,
// which does not hand on the context that ends with the client.
func (s *Server) servePortForward(
	w http.ResponseWriter, r *http.Request, request *runtimeapi.PortForwardRequest,
) {
	ports, err := portforward.BuildV4Options(request.Port)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	config := cristreaming.DefaultConfig
	portforward.ServePortForward(w, r, &forwarder{s, r.Context()}, request.PodSandboxId, "", ports,
		idleTimeout, config.StreamCreationTimeout, config.SupportedPortForwardProtocols)
}

// forwarder forwards the ports of one client.
type forwarder struct {
	*Server
	client context.Context // ends with its connection
}

// PortForward connects one stream of the client with a TCP port of the pod. An error is told to the client.
func (f *forwarder) PortForward(
	_ context.Context, podSandboxID, _ string, port int32, stream io.ReadWriteCloser,
) error {
	netns, err := f.cfg.Netns(f.client, podSandboxID)
	if err != nil {
		return err
	}

	conn, err := dial(f.client, netns, int(port))
	if err != nil {
		return fmt.Errorf("pod %s: %w", podSandboxID, err)
	}
	defer conn.Close()
	defer context.AfterFunc(f.client, func() { conn.Close() })()

	if err = join(conn, stream); err != nil && f.client.Err() == nil {
		return fmt.Errorf("pod %s: %w", podSandboxID, err)
	}

	return nil
}

// PortForward is there for the library's Server, which has no such requests: they are taken before.
func (a *adapter) PortForward(
	ctx context.Context, podSandboxID string, port int32, stream io.ReadWriteCloser,
) error {
	return (&forwarder{(*Server)(a), ctx}).PortForward(ctx, podSandboxID, "", port, stream)
}

// join copies both ways until both have ended. What the client still sends when the pod's end is closed
// must not stay in the stream: SPDY's streams share a connection, and one that nobody reads stops all of
// them.
func join(conn *net.TCPConn, stream io.ReadWriteCloser) error {
	fromClient := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)

		// the client has no more to say, but may want the answer
		conn.CloseWrite()
		fromClient <- err
	}()

	toClient := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		if err == nil {
			// so that the client knows that it has the whole answer
			stream.Close()
		}

		toClient <- err
	}()

	select {
	case err := <-fromClient:
		if err == nil {
			return <-toClient
		}

		// an answer that came before
		soon(toClient)
		return errors.Join(err, reset(stream))

	case err := <-toClient:
		sent, over := soon(fromClient)
		if over && sent == nil {
			return err
		}

		return errors.Join(err, sent, reset(stream))
	}
}

// soon waits for the end of a copy, but not for long.
func soon(copied <-chan error) (err error, over bool) {
	select {
	case err = <-copied:
		return err, true
	case <-time.After(lastWords):
		return nil, false
	}
}

// reset drops what the client still sends. Streams that have a connection of their own end with it and know
// no reset.
func reset(stream io.ReadWriteCloser) error {
	if r, ok := stream.(interface{ Reset() error }); ok {
		return r.Reset()
	}
	return nil
}

// dial connects to the port on the loopback of a network namespace, IPv4 first. The addresses are literal, so
// that the dialler stays on the thread that is in the namespace.
func dial(ctx context.Context, netns string, port int) (*net.TCPConn, error) {
	var conn net.Conn
	connect := func() error {
		d := net.Dialer{Timeout: dialTimeout}
		var errs []error
		for _, host := range []string{"127.0.0.1", "::1"} {
			var err error
			if conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
				return nil
			}

			errs = append(errs, err)
		}

		return errors.Join(errs...)
	}

	var err error
	if netns == "" {
		err = connect()
	} else {
		err = namespace.Do(connect, netns)
	}

	if err != nil {
		return nil, err
	}

	return conn.(*net.TCPConn), nil
}
