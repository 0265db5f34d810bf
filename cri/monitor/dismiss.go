package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// Dismiss ends the monitor at the socket, and the trivet-cri that is its client. It fails if a container is
// left. If there is no monitor, that is success.
func Dismiss(ctx context.Context, socket string) error {
	conn, err := wire.Dial(socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("connect to trivet-monitor: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	if err := conn.Send(wire.Message{Op: wire.OpDismiss}, nil); err != nil {
		return fmt.Errorf("ask trivet-monitor to end: %w", err)
	}

	m, files, err := conn.Receive()
	files.Close()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("ask trivet-monitor to end: %w", err)
	}

	return m.Fail.Err()
}
