// Package socket listens on and dials unix sockets for daemons that may be killed at any instruction: the
// socket file of a dead server is taken over, that of a live server is refused with a clear error.
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

// Path returns the path of an endpoint, with or without the scheme unix:// that flags of Kubernetes have.
// Other schemes are an error, and so are relative paths.
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

// Listen makes the directory of path with mode 0755 and listens on path with mode 0660. It replaces the
// socket of a dead server. If a live process answers on it, that is a *program.CantRunError; ctx bounds the
// wait for one that is ending.
//
// Of two servers that start at the same time, a lock file beside the socket (path + ".lock", held until the
// process ends) admits one, so that the other never removes its socket.
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

	// A server that does not know the lock may answer as well, and for a moment one that was killed.
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

// listen makes the socket file. The caller holds the lock.
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

// Alive reports whether a process accepts connections on path.
func Alive(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Dial returns a gRPC connection to the server at a unix socket, with or without the scheme unix://. It
// connects when it is used and reconnects by itself. Messages may have up to 16 MiB, as with kubelet.
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
