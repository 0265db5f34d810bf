// Package socket serves and dials unix sockets the way a daemon that may be killed at any instruction needs:
// a socket file left by a dead server is taken over, one that a live server answers on is refused with a
// clear error.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/trivet-node/trivet/internal/lockfile"
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

// Listen makes the directory of path (0755) and listens on path with mode 0660. A stale socket is replaced.
// If a live process answers on it, or ctx ends first, that is an error; the first of them is a
// *program.CantRunError. Two starts at once are decided by a lock file beside the socket (path + ".lock",
// held until the process ends), so the loser never unlinks the winner's socket.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("socket path %s is %d bytes long; the kernel takes at most %d",
			path, len(path), maxPath)
	}

	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}

	if err := lockfile.Hold(ctx, path+".lock", "socket "+path); err != nil {
		return nil, err
	}

	// A server that does not know the lock may answer too, and so may one that was killed, for a moment.
	if !lockfile.Await(ctx, func() bool { return !Alive(path) }) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}

		return nil, &program.CantRunError{
			What: "socket " + path + " is served by another process",
			Do:   "stop that process or choose another path",
		}
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
