// Package socket serves and dials unix sockets the way a daemon that may be killed at any instruction needs:
// a socket file left by a dead server is taken over, one that a live server answers on is refused with a
// clear error.
package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trivet-node/trivet/internal/program"
)

// maxPath is the size of sockaddr_un.sun_path less the closing NUL (unix(7)).
const maxPath = 107

// Path strips the unix:// scheme that Kubernetes flags carry. Other schemes are refused.
func Path(endpoint string) (string, error) {
	p, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok && strings.Contains(endpoint, "://") {
		return "", fmt.Errorf("endpoint %q: only unix:// sockets are served", endpoint)
	}
	if !filepath.IsAbs(p) {
		return "", fmt.Errorf("endpoint %q: the socket path must be absolute", endpoint)
	}
	return p, nil
}

// Listen makes the directory of path (0755) and listens on path with mode 0660. A stale socket is replaced;
// if a live process answers on it, the error is a *program.CantRunError. Two starts at once are decided by a
// lock file beside the socket (path + ".lock", held until the process ends), so the loser never unlinks the
// winner's socket.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("socket path %s is %d bytes long; the kernel takes at most %d",
			path, len(path), maxPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := claim(path); err != nil {
		return nil, err
	}
	return listen(path)
}

// listen makes the socket file. The caller has the claim to its path.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}

	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}

	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}

	return l, nil
}

// linger is how long a server that was killed may seem to live: a program that it was about to start holds
// its descriptors until it executes.
const linger = time.Second

// claim takes the lock and sees that nobody answers, not even one that knows no lock.
func claim(path string) error {
	held := false
	for end := time.Now().Add(linger); ; time.Sleep(10 * time.Millisecond) {
		if !held {
			err := lock(path + ".lock")
			if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
				return fmt.Errorf("lock %s.lock: %w", path, err)
			}

			held = err == nil
		}

		if held && !Alive(path) {
			return nil
		}
		if time.Now().After(end) {
			return taken(path)
		}
	}
}

func taken(path string) error {
	return &program.CantRunError{What: "socket " + path + " is served by another process",
		Do: "stop that process or choose another path"}
}

// lock takes an exclusive flock that lives as long as the process. The descriptor is close-on-exec and never
// closed on purpose.
func lock(path string) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return err
	}
	return nil
}

// Alive reports whether some process accepts connections on path.
func Alive(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Dial returns a gRPC client of the server on the unix socket path (with or without unix://). It connects
// lazily and reconnects by itself; messages of up to 16 MiB are taken, as kubelet does.
func Dial(endpoint string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	path, err := Path(endpoint)
	if err != nil {
		return nil, err
	}
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16 << 20)),
	}, opts...)
	return grpc.NewClient("unix://"+path, opts...)
}
