package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// errUnknown is wrapped by the error of a probe that could not run at all, as the runtime is away: that says
// nothing about the container.
var errUnknown = errors.New("probe could not run")

// warning is an answer that counts as healthy and that users should know.
type warning struct{ text string }

// Error returns the answer.
func (w *warning) Error() string { return w.text }

// maxBody bounds what is read of an answer, in bytes.
const maxBody = 10 << 10

// userAgent is kubelet's, with the version whose behaviour is served.
const userAgent = "kube-probe/1.37"

// check is one run of a probe.
type check struct {
	dial      dialer
	exec      Exec
	probe     *v1.Probe
	container *v1.Container

	// id is that of the container.
	id string

	// ip is that of the pod.
	ip string
}

// run runs the probe; nil is healthy.
func (c check) run(ctx context.Context) error {
	timeout := time.Duration(orDefault(c.probe.TimeoutSeconds, 1)) * time.Second
	if c.probe.Exec != nil {
		// The runtime keeps the time.
		return c.command(ctx, timeout)
	}

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	switch {
	case c.probe.HTTPGet != nil:
		body, err := HTTPGet(ctx, c.probe.HTTPGet, c.container, c.ip, userAgent)
		if errors.Is(err, ErrRedirected) {
			return &warning{"Probe terminated redirects, Response body: " + body}
		}

		return err

	case c.probe.TCPSocket != nil:
		return c.tcp(ctx)
	case c.probe.GRPC != nil:
		return c.grpc(ctx, timeout)
	}

	return nil
}

// command runs a command in the container; the exit code 0 is healthy.
func (c check) command(ctx context.Context, timeout time.Duration) error {
	command := c.probe.Exec.Command
	out, code, err := c.exec.ExecSync(ctx, c.id, command, timeout)
	switch {
	case errors.Is(err, runtime.ErrTimeout):
		return fmt.Errorf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout)
	case err != nil:
		return fmt.Errorf("%w: %w", errUnknown, err)
	case code != 0:
		return errors.New(strings.ToValidUTF8(string(out[:min(len(out), maxBody)]), "?"))
	}

	return nil
}

// tcp opens a connection, and nothing more.
func (c check) tcp(ctx context.Context) error {
	port, err := portNumber(c.probe.TCPSocket.Port, c.container)
	if err != nil {
		return err
	}

	host := cmp.Or(c.probe.TCPSocket.Host, c.ip)
	conn, err := c.dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return err
	}

	return conn.Close()
}

// grpc calls the server's health service (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
func (c check) grpc(ctx context.Context, timeout time.Duration) error {
	address := net.JoinHostPort(c.ip, strconv.Itoa(int(c.probe.GRPC.Port)))
	failed := func(err error) error {
		return fmt.Errorf("timeout: failed to connect service %q within %v: %w", address, timeout, err)
	}

	// The connection is made here, as grpc reports a refusal only in words.
	tcp, err := c.dial(ctx, "tcp", address)
	if err != nil {
		return failed(err)
	}
	defer tcp.Close()

	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUserAgent(userAgent),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return tcp, nil }),
	)
	if err != nil {
		return err
	}
	defer conn.Close()

	request := &grpc_health_v1.HealthCheckRequest{}
	if c.probe.GRPC.Service != nil {
		request.Service = *c.probe.GRPC.Service
	}

	r, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, request)
	switch status.Code(err) {
	case codes.OK:
	case codes.DeadlineExceeded, codes.Unavailable:
		return failed(err)
	case codes.Unimplemented:
		return fmt.Errorf("error: this server does not implement the grpc health protocol "+
			"(grpc.health.v1.Health): %w", err)
	default:
		return fmt.Errorf("error: health rpc probe failed: %w", err)
	}

	if r.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", r.Status)
	}

	return nil
}
