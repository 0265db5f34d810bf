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

// closeGrace is how long one direction of a forwarded connection may go on when the other one has ended.
const closeGrace = time.Second

// servePortForward serves a connection whose streams are ports. It calls the library below its Server, which
// does not hand on the context that ends with the client.
func (s *Server) servePortForward(
	w http.ResponseWriter, r *http.Request, request *runtimeapi.PortForwardRequest,
) {
	ports, err := portforward.BuildV4Options(request.Port)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}

	config := cristreaming.DefaultConfig
	portforward.ServePortForward(
		w,
		r,
		&forwarder{sandboxes: s.cfg.Sandboxes, client: r.Context()},
		request.PodSandboxId,
		"",
		ports,
		idleTimeout,
		config.StreamCreationTimeout,
		config.SupportedPortForwardProtocols,
	)
}

// forwarder forwards the ports of one client.
type forwarder struct {
	sandboxes Sandboxes

	// client ends with the client's connection.
	client context.Context
}

// PortForward connects one stream of the client with a TCP port of the pod. The client gets the error.
func (f *forwarder) PortForward(
	_ context.Context, podSandboxID, _ string, port int32, stream io.ReadWriteCloser,
) error {
	netns, err := f.sandboxes.NetnsOf(podSandboxID)
	if err != nil {
		return err
	}

	conn, err := dial(f.client, netns, int(port))
	if err != nil {
		return fmt.Errorf("pod %s: %w", podSandboxID, err)
	}
	defer conn.Close()

	stop := context.AfterFunc(f.client, func() { conn.Close() })
	defer stop()

	err = copyBoth(conn, stream)
	if err != nil && f.client.Err() == nil {
		return fmt.Errorf("pod %s: %w", podSandboxID, err)
	}

	return nil
}

// PortForward is for the library's Server, which gets no such requests: ServeHTTP serves them before.
func (a *adapter) PortForward(
	ctx context.Context, podSandboxID string, port int32, stream io.ReadWriteCloser,
) error {
	f := &forwarder{sandboxes: a.cfg.Sandboxes, client: ctx}
	return f.PortForward(ctx, podSandboxID, "", port, stream)
}

// copyBoth copies both ways until both have ended. What the client still sends when the pod's end is closed
// must not stay in the stream: SPDY's streams share a connection, and one that nobody reads stops all of
// them.
func copyBoth(conn *net.TCPConn, stream io.ReadWriteCloser) error {
	fromClient := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)

		// The client sends no more, but may wait for the answer. The pod may have closed the connection.
		_ = conn.CloseWrite()
		fromClient <- err
	}()

	toClient := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		if err == nil {
			// By this the client knows that it has the whole answer.
			stream.Close()
		}

		toClient <- err
	}()

	select {
	case err := <-fromClient:
		if err == nil {
			return <-toClient
		}

		// There may be an answer that came before the error, which is the one to report.
		_, _ = withinGrace(toClient)
		return errors.Join(err, reset(stream))

	case err := <-toClient:
		sendErr, ended := withinGrace(fromClient)
		if ended && sendErr == nil {
			return err
		}

		return errors.Join(err, sendErr, reset(stream))
	}
}

// withinGrace waits for the end of a copy, for closeGrace.
func withinGrace(copied <-chan error) (err error, ended bool) {
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case err = <-copied:
		return err, true
	case <-timer.C:
		return nil, false
	}
}

// reset drops what the client still sends. Streams that have a connection of their own end with it and cannot
// be reset.
func reset(stream io.ReadWriteCloser) error {
	if r, ok := stream.(interface{ Reset() error }); ok {
		return r.Reset()
	}
	return nil
}

// dial connects to a port on the loopback of a network namespace; an empty path is the host's.
func dial(ctx context.Context, netns string, port int) (conn *net.TCPConn, err error) {
	connect := func() error {
		conn, err = dialLoopback(ctx, port)
		return err
	}
	if netns == "" {
		err = connect()
	} else {
		err = namespace.Do(connect, netns)
	}
	return conn, err
}

// dialLoopback connects to a port on the loopback, by IPv4 first. The addresses are literal, so that the
// dialler stays on its thread, which is in a namespace.
func dialLoopback(ctx context.Context, port int) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	var errs []error
	for _, host := range []string{"127.0.0.1", "::1"} {
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return conn.(*net.TCPConn), nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
