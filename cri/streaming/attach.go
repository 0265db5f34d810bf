package streaming

import (
	"context"
	"io"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/trivet-node/trivet/cri/monitor"
)

// Attach connects the client with a container's own streams; see Server.runAttach.
func (a *adapter) Attach(
	ctx context.Context,
	containerID string,
	in io.Reader,
	out, errOut io.WriteCloser,
	tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	streams := clientStreams{
		in:     in,
		out:    out,
		errOut: errOut,
		tty:    tty,
		resize: resize,
	}
	return (*Server)(a).runAttach(ctx, containerID, streams)
}

// runAttach connects the client with a container's own streams until the container ends or the client is
// gone, which is not an error. The end of the client's input alone is not the end: output goes on.
func (s *Server) runAttach(ctx context.Context, id string, client clientStreams) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	streams := monitor.Streams{Stdin: client.in, Stdout: client.out}
	// A terminal has one output.
	if !client.tty {
		streams.Stderr = client.errOut
	}

	go s.resize(ctx, id, client.resize)
	err := s.cfg.Processes.Attach(ctx, id, streams)
	if ctx.Err() != nil {
		return nil
	}

	return err
}

// resize sets the sizes of a container's terminal until sizes is closed or ctx ends.
func (s *Server) resize(ctx context.Context, id string, sizes <-chan remotecommand.TerminalSize) {
	for {
		select {
		case size, open := <-sizes:
			if !open {
				return
			}
			if err := s.cfg.Processes.Resize(id, size.Width, size.Height); err != nil {
				s.cfg.Log.Debug("terminal is not resized", "container", id, "err", err)
			}

		case <-ctx.Done():
			return
		}
	}
}
