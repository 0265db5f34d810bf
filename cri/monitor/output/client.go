package output

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// tap is a client that is attached. late is what its pipe did not take at once.
type tap struct {
	f    *os.File
	late []byte
}

// maxTaps is how many clients may be attached to one container's stream: each costs a descriptor here.
const maxTaps = 64

// Attach adds a client; fd is the writing end of its pipe, ours from now on.
func (st *Stream) Attach(fd int) error {
	if st == nil {
		return unix.Close(fd)
	}

	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}

	st.mu.Lock()
	defer st.mu.Unlock()

	if st.over {
		return unix.Close(fd)
	}

	if len(st.taps) >= maxTaps {
		unix.Close(fd)
		return fmt.Errorf("%d clients are attached to it, which is the limit", maxTaps)
	}

	t := &tap{f: os.NewFile(uintptr(fd), "attached client")}
	st.taps = append(st.taps, t)
	go st.watch(t)
	return nil
}

// watch lets a client go when its reading end is closed. A write would tell, too, but a quiet container
// writes nothing.
func (st *Stream) watch(t *tap) {
	raw, err := t.f.SyscallConn()
	if err != nil {
		return
	}
	// The poller wakes a reader of the writing end for nothing but EPOLLERR: the pipe has no reader any more.
	raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n > 0 && poll[0].Revents&unix.POLLERR != 0
	})
	st.letGo(t)
}

// letGo closes a client's pipe. For one that was let go already it does nothing.
func (st *Stream) letGo(t *tap) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.taps = slices.DeleteFunc(st.taps, func(other *tap) bool { return other == t })
	t.f.Close()
}

// deliver gives a batch to all taps, as much as they take at once.
func (st *Stream) deliver(data []byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.taps = slices.DeleteFunc(st.taps, func(t *tap) bool {
		n, err := writeNow(t.f, data)
		if err != nil {
			t.f.Close()
			return true
		}
		t.late = slices.Clone(data[n:])
		return false
	})
}

// slowClient is how long an attached client may take none of its output before it is let go. Until then the
// container waits, as for any slow terminal.
const slowClient = 10 * time.Second

// catchUp writes what the taps did not take at once.
func (st *Stream) catchUp() {
	st.mu.Lock()
	taps := slices.Clone(st.taps)
	st.mu.Unlock()
	for _, t := range taps {
		if len(t.late) == 0 {
			continue
		}

		err := t.write(t.late)
		t.late = nil
		if err != nil {
			st.log.Warn("attached client is let go", "err", err)
			st.letGo(t)
		}
	}
}

func (t *tap) write(data []byte) error {
	for len(data) > 0 {
		if err := t.f.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
			return err
		}
		n, err := t.f.Write(data[:min(len(data), 4096)])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// writeNow writes what fits without waiting.
func writeNow(f *os.File, data []byte) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	raw.Control(func(fd uintptr) { n, err = unix.Write(int(fd), data) })
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return max(n, 0), err
}
