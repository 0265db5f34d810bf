package streaming

import (
	"context"
	"io"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/trivet-node/trivet/cri/monitor"
)

// Attach connects the client with the container's own streams until the container ends or the client is gone,
// which is no error. The end of the client's input alone is not the end: output goes on.
func (a *adapter) Attach(
	ctx context.Context,
	containerID string,
	in io.Reader,
	out, errOut io.WriteCloser,
	tty bool,
	resize <-chan remotecommand.TerminalSize,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	streams := monitor.Streams{}
	// An interface that holds a nil pointer is not nil: only what is there is passed on.
	if in != nil {
		streams.Stdin = in
	}
	if out != nil {
		streams.Stdout = out
	}
	if errOut != nil && !tty {
		streams.Stderr = errOut
	}

	go func() {
		for {
			select {
			case size, open := <-resize:
				if !open {
					return
				}
				if err := a.cfg.Monitor.Resize(containerID, size.Width, size.Height); err != nil {
					a.cfg.Log.Debug("terminal is not resized", "container", containerID, "err", err)
				}

			case <-ctx.Done():
				return
			}
		}
	}()

	err := a.cfg.Monitor.Attach(ctx, containerID, streams)
	if ctx.Err() != nil {
		return nil
	}

	return err
}
