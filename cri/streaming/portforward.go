package streaming

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/internal/namespace"
)

// dialTimeout bounds a connection attempt, which goes to the pod's own loopback.
const dialTimeout = 10 * time.Second

// PortForward connects one stream of the client with a TCP port of the pod. An error is told to the client.
func (a *adapter) PortForward(ctx context.Context, podSandboxID string, port int32, stream io.ReadWriteCloser) error {
	netns, err := a.cfg.Netns(ctx, podSandboxID)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, netns, int(port))
	if err != nil {
		return fmt.Errorf("pod %s: %w", podSandboxID, err)
	}
	defer conn.Close()
	fromClient := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)
		conn.CloseWrite() // the client has no more to say, but may want the answer
		fromClient <- err
	}()
	toClient := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, conn)
		toClient <- err
	}()
	select {
	case err = <-toClient:
	case err = <-fromClient:
		if err == nil {
			err = <-toClient
		}
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		a.cfg.Log.Debug("forwarded connection broke", "pod", podSandboxID, "port", port, "err", err)
	}
	return nil
}

// dial connects to the port on the loopback of a network namespace, IPv4 first. The addresses are literal, so that the dialler stays on the
// thread that is in the namespace.
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
