package runtime

import (
	"context"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// execAllowance is how much longer than its command a call of ExecSync may take.
const execAllowance = 5 * time.Second

// ExecSync runs a command in a container and returns its output, first what it wrote to stdout, and its exit
// code. That the command failed is not an error; that it took longer than timeout is one, ErrTimeout. A
// timeout of 0 is none.
func (c *Client) ExecSync(
	ctx context.Context, id string, command []string, timeout time.Duration,
) (output []byte, code int32, err error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout+execAllowance)
		defer cancel()
	}

	r, err := c.runtime.ExecSync(ctx, &cri.ExecSyncRequest{
		ContainerId: id,
		Cmd:         command,
		Timeout:     seconds(timeout),
	})
	if err != nil {
		return nil, 0, plainTimeout(err)
	}

	return append(r.Stdout, r.Stderr...), r.ExitCode, nil
}

// Streams are the standard streams that the caller of a command wants to be connected to.
type Streams struct {
	Stdin, Stdout, Stderr bool
	TTY                   bool // a terminal; it has no stderr
}

// Exec prepares a command in a container and returns the URL of the runtime's streaming server where its
// streams are. A client that knows the URL may run the command, once.
func (c *Client) Exec(ctx context.Context, id string, command []string, s Streams) (url string, err error) {
	r, err := c.runtime.Exec(ctx, &cri.ExecRequest{
		ContainerId: id,
		Cmd:         command,
		Stdin:       s.Stdin,
		Stdout:      s.Stdout,
		Stderr:      s.Stderr,
		Tty:         s.TTY,
	})
	return r.GetUrl(), plain(err)
}

// Attach is Exec for the process that the container runs already.
func (c *Client) Attach(ctx context.Context, id string, s Streams) (url string, err error) {
	r, err := c.runtime.Attach(ctx, &cri.AttachRequest{
		ContainerId: id,
		Stdin:       s.Stdin,
		Stdout:      s.Stdout,
		Stderr:      s.Stderr,
		Tty:         s.TTY,
	})
	return r.GetUrl(), plain(err)
}

// PortForward prepares connections to ports of a sandbox and returns a URL as Exec does.
func (c *Client) PortForward(ctx context.Context, sandbox string, ports []int32) (url string, err error) {
	r, err := c.runtime.PortForward(ctx, &cri.PortForwardRequest{PodSandboxId: sandbox, Port: ports})
	return r.GetUrl(), plain(err)
}

// Checkpoint writes the state of a running container into a file of the node, within timeout.
func (c *Client) Checkpoint(ctx context.Context, id, file string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	_, err := c.runtime.CheckpointContainer(ctx, &cri.CheckpointContainerRequest{
		ContainerId: id,
		Location:    file,
		Timeout:     seconds(timeout),
	})
	return plain(err)
}

// ReopenLog makes the runtime go on with a container's log in a new file of the same name.
func (c *Client) ReopenLog(ctx context.Context, id string) error {
	_, err := c.runtime.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: id})
	return plain(err)
}
