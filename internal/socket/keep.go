package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/inotify"
	"github.com/trivet-node/trivet/internal/retry"
)

// Keep makes the socket of a listener that Listen returned again whenever its file is gone (the directory was
// cleared or removed), until ctx ends, and calls serve with each new listener. serve must not block. The old
// listeners are closed. At the end the file is left for Remove.
func Keep(ctx context.Context, listener net.Listener, path string, serve func(net.Listener)) error {
	// By the time this listener is closed, the file may be that of another one.
	keepName(listener)
	for {
		err := awaitGone(ctx, path)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch socket %s: %w", path, err)
		}

		next, err := listenAgain(ctx, path)
		if err != nil {
			return fmt.Errorf("make socket %s again: %w", path, err)
		}

		keepName(next)
		serve(next)
		listener.Close()
		listener = next
	}
}

// listenAgain makes the socket. Who removes its directory may not be through: what was made of it then goes
// before the socket is in it, and both are made once more.
func listenAgain(ctx context.Context, path string) (l net.Listener, err error) {
	for range (retry.Backoff{First: time.Millisecond, Max: time.Second}).Attempts(ctx) {
		if l, err = listen(path); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	return l, err
}

// keepName makes a listener leave its file when it is closed.
func keepName(l net.Listener) {
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
}

// Remove removes the file of a socket of Listen that is not served any more.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// awaitGone returns when nothing is at path any more, or ctx has ended.
func awaitGone(ctx context.Context, path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if inotify.UsedUp(err) {
		return lookUntilGone(ctx, path)
	}
	if err != nil {
		return err
	}

	// Read by the runtime's poller, so that Close ends a Read.
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()

	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()

	const gone = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	_, err = unix.InotifyAddWatch(fd, filepath.Dir(path), gone)
	if errors.Is(err, unix.ENOENT) {
		// It is gone with its directory.
		return nil
	}

	if err != nil {
		return err
	}

	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		// After the watch has begun, and after each event.
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return nil
		}

		n, err := events.Read(buf)
		if err != nil {
			return err
		}
		if movedAway(buf[:n]) {
			return nil
		}
	}
}

// lookUntilGone does the same when the kernel has no inotify instance left.
func lookUntilGone(ctx context.Context, path string) error {
	for range retry.Every(ctx, time.Second) {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	return ctx.Err()
}

// movedAway reports whether the events of a watched directory say that the directory itself was removed or
// moved.
func movedAway(buf []byte) bool {
	for len(buf) >= unix.SizeofInotifyEvent {
		event := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		if event.Mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED) != 0 {
			return true
		}
		buf = buf[min(len(buf), unix.SizeofInotifyEvent+int(event.Len)):]
	}
	return false
}
