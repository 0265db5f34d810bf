package netlink

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Group is the bit of a multicast group in the mask that Watch takes.
func Group(number int) uint32 { return 1 << (number - 1) }

// Watch subscribes to multicast groups of a family, in the network namespace of the calling thread, until ctx
// ends. It calls visit with each message. A call with kind 0 and no body means that anything may have
// changed: the first call, when the subscription has begun, is one, so that what the caller reads from then
// on cannot change unnoticed; the others follow messages that were lost because visit did not keep up.
func Watch(ctx context.Context, family Family, groups uint32, visit func(kind uint16, body []byte)) error {
	return WatchSenders(ctx, family, groups, func(_ uint32, kind uint16, body []byte) { visit(kind, body) })
}

// WatchSenders is Watch for callers that tell their own changes from others': each message has the port of
// the socket whose request it follows.
func WatchSenders(
	ctx context.Context, family Family, groups uint32, visit func(port uint32, kind uint16, body []byte),
) error {
	socket, err := subscribe(family, groups)
	if err != nil {
		return err
	}

	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()

	visit(0, 0, nil)
	buffer := make([]byte, 16<<10)
	for {
		n, err := socket.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			visit(0, 0, nil)
			continue
		case err != nil:
			return errors.Join(fmt.Errorf("read netlink messages: %w", err), socket.Close())
		}

		// What cannot be read may have said anything.
		malformed := split(buffer[:n], func(h header, body []byte) error {
			visit(h.port, h.kind, body)
			return nil
		})
		if malformed != nil {
			visit(0, 0, nil)
		}
	}
}

// subscribe returns the socket as a file of the runtime's poller: that can be closed under a waiting read.
func subscribe(family Family, groups uint32) (*os.File, error) {
	const kind = unix.SOCK_RAW | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_NETLINK, kind, int(family))
	if err != nil {
		return nil, fmt.Errorf("open %s socket: %w", family, err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to %s messages: %w", family, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}
