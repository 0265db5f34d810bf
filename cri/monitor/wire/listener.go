package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// Listener is the monitor's end of the socket. (internal/socket would bring gRPC into this small process.)
type Listener struct {
	path string
	sock *net.UnixListener
}

// Listen makes the socket at path (0600) and its directory. A socket file that is there is replaced, so the
// caller must hold the lock that says that nobody serves it.
func Listen(path string) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}

	sock, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return nil, err
	}

	sock.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		sock.Close()
		return nil, err
	}

	return &Listener{path: path, sock: sock}, nil
}

// Inherit makes a Listener of a listening descriptor, which it closes in any case.
func Inherit(path string, fd int) (*Listener, error) {
	// FileListener makes a copy of its own.
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()

	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket %s: %w", path, err)
	}

	sock, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("inherited socket %s is not a unix socket", path)
	}

	sock.SetUnlinkOnClose(false)
	return &Listener{path: path, sock: sock}, nil
}

// Accept waits for the next client.
func (l *Listener) Accept() (*Conn, error) {
	sock, err := l.sock.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return newConn(sock), nil
}

// SyscallConn gives access to the descriptor.
func (l *Listener) SyscallConn() (syscall.RawConn, error) { return l.sock.SyscallConn() }

// Close ends Accept. The file of the socket stays, for Remove.
func (l *Listener) Close() error { return l.sock.Close() }

// Remove removes the file of the socket: clients that come later find that no monitor is there.
func (l *Listener) Remove() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
