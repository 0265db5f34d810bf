package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/program"
)

// listener is the socket and the lock that says whose it is. Both can be carried over an execve.
// (internal/socket would bring gRPC into this small process.)
type listener struct {
	path string
	sock *net.UnixListener
	lock int
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
func listen(path string, inherited map[string]int) (*listener, error) {
	if fd, ok := inherited[inheritListener]; ok {
		return inheritedListener(path, fd, inherited[inheritLock])
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}

	lock, err := takeLock(path+".lock", "socket "+path)
	if err != nil {
		return nil, err
	}

	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		unix.Close(lock)
		return nil, err
	}

	sock, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		unix.Close(lock)
		return nil, err
	}

	sock.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		sock.Close()
		unix.Close(lock)
		return nil, err
	}

	return &listener{path: path, sock: sock, lock: lock}, nil
}

// linger is how long a monitor that was killed may seem to live: a runtime that it was about to start holds
// its descriptors until it executes.
const linger = time.Second

// takeLock locks a file for as long as the process, or one that inherits the descriptor, lives. what is the
// thing that the lock stands for.
func takeLock(path, what string) (int, error) {
	lock, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", path, err)
	}

	err = unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB)
	for end := time.Now().Add(linger); errors.Is(err, unix.EWOULDBLOCK) &&
		time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		err = unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB)
	}

	if err != nil {
		unix.Close(lock)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return -1, &program.CantRunError{What: what + " is used by another trivet-monitor",
				Do: "stop that one or choose another --socket and --state-dir"}
		}

		return -1, fmt.Errorf("lock %s: %w", path, err)
	}

	return lock, nil
}

func inheritedListener(path string, fd, lock int) (*listener, error) {
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
	unix.Close(l.lock)
}
