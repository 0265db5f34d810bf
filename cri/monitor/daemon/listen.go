package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/lockfile"
)

// listener is the socket and the lock that says whose it is. Both can be carried over an execve.
// (internal/socket would bring gRPC into this small process.)
type listener struct {
	path string
	sock *net.UnixListener
	lock *os.File
}

// Names of inherited descriptors; terminals and stdins have the container's ID after the slash.
const (
	inheritListener = "listener"
	inheritLock     = "lock"
	inheritState    = "state"
	inheritTTY      = "tty/"
	inheritStdin    = "in/"
)

// listen takes the socket, also from a dead monitor, but not from a live one.
func listen(ctx context.Context, path string, inherited map[string]int) (*listener, error) {
	if fd, ok := inherited[inheritListener]; ok {
		return inheritedListener(path, fd, os.NewFile(uintptr(inherited[inheritLock]), path+".lock"))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}

	lock, err := lockfile.Take(ctx, path+".lock", "socket "+path+" (--socket)")
	if err != nil {
		return nil, err
	}

	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		lock.Close()
		return nil, err
	}

	sock, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		lock.Close()
		return nil, err
	}

	sock.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		sock.Close()
		lock.Close()
		return nil, err
	}

	return &listener{path: path, sock: sock, lock: lock}, nil
}

func inheritedListener(path string, fd int, lock *os.File) (*listener, error) {
	f := os.NewFile(uintptr(fd), path)

	// FileListener has its own copy
	defer f.Close()

	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("inherited socket %s: %w", path, err)
	}

	sock, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("inherited socket %s is no unix socket", path)
	}

	sock.SetUnlinkOnClose(false)
	return &listener{path: path, sock: sock, lock: lock}, nil
}

func (l *listener) close() {
	l.sock.Close()
	os.Remove(l.path)
	l.lock.Close()
}
