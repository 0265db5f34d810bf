package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keep makes the socket of a listener that Listen returned anew whenever its file is gone (somebody has
// cleared the directory, or removed it), until ctx ends, and hands each new listener to serve, which must not
// block. The old ones are closed. At the end the file is left for Remove.
func Keep(ctx context.Context, listener net.Listener, path string, serve func(net.Listener)) error {
	// it may be another socket's by the time this one is closed
	keepName(listener)
	for {
		err := awaitGone(ctx, path)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch socket %s: %w", path, err)
		}

		next, err := listen(path)
		if err != nil {
			return fmt.Errorf("make socket %s again: %w", path, err)
		}

		keepName(next)
		serve(next)
		listener.Close()
		listener = next
	}
}

func keepName(l net.Listener) {
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
}

// Remove removes the file of a socket that is served no more. The caller had it by Listen.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// awaitGone returns when there is no file at path, or ctx has ended.
func awaitGone(ctx context.Context, path string) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return err
	}

	// read by the runtime's poller, so that Close ends a Read
	events := os.NewFile(uintptr(fd), "inotify")
	defer events.Close()

	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()

	const gone = unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	_, err = unix.InotifyAddWatch(fd, filepath.Dir(path), gone)
	if errors.Is(err, unix.ENOENT) {
		// with its directory
		return nil
	}

	if err != nil {
		return err
	}

	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		// Looked at after the watch began, and after each event.
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

// movedAway reports whether among the events of a watched directory is the end of the directory itself.
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
