// Package console receives the master of a terminal that an OCI runtime made, over the unix socket that its
// flag --console-socket names.
package console

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Socket waits for one terminal. It must be closed.
type Socket struct {
	Path string
	l    *net.UnixListener
	dir  string
}

// Listen makes a socket in a new directory below parent, which is made if it is missing. The path must be
// short: at most 107 bytes (unix(7)).
func Listen(parent string) (*Socket, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}

	dir, err := os.MkdirTemp(parent, "tty")
	if err != nil {
		return nil, fmt.Errorf("directory of a console socket: %w", err)
	}

	s := &Socket{Path: filepath.Join(dir, "s"), dir: dir}
	if s.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: s.Path, Net: "unix"}); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("console socket: %w", err)
	}

	return s, nil
}

// Close ends a Receive and removes the socket.
func (s *Socket) Close() error {
	return errors.Join(s.l.Close(), os.RemoveAll(s.dir))
}

// Receive waits for the terminal's master and returns it, non-blocking and close-on-exec. The caller closes
// it.
func (s *Socket) Receive(ctx context.Context) (*os.File, error) {
	stop := context.AfterFunc(ctx, func() { s.l.Close() })
	defer stop()

	conn, err := s.l.AcceptUnix()
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	defer conn.Close()

	stopRead := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopRead()

	name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(name, oob)
	if err != nil {
		return nil, fmt.Errorf("receive terminal: %w", err)
	}

	// The runtime sends one message with one descriptor.
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("receive terminal: %d control messages: %w",
			len(messages), errors.Join(err, unix.EBADMSG))
	}

	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("receive terminal: %d descriptors: %w",
			len(fds), errors.Join(err, unix.EBADMSG))
	}

	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}

	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
