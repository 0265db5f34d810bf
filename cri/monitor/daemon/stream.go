package daemon

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
)

// stream is one output of a container on its way from the FIFO to the log and to those attached.
type stream struct {
	path string
	f    *os.File // reading end, non-blocking
	src  logfile.Source
	log  *slog.Logger
	done chan struct{} // closed at the end of the output

	mu   sync.Mutex // guards taps and over
	taps []*tap
	over bool
}

// tap is a client that is attached. late is what its pipe did not take at once.
type tap struct {
	f    *os.File
	late []byte
}

// openStream opens the reading end. The output waits in the FIFO until pump runs.
func openStream(path, key, name string, log *logfile.File, logger *slog.Logger) (*stream, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// A larger pipe widens the time that a container can write while no monitor reads; where the user's pipe budget is used up, it stays at 64 KiB.
	unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 256<<10)
	st := &stream{path: path, f: os.NewFile(uintptr(fd), path), log: logger.With("stream", key), done: make(chan struct{})}
	st.src = logfile.Source{Key: key, Stream: name, Log: log, Tap: st.deliver}
	return st, nil
}

// pump moves output until it ends. Each turn moves one batch, and waits for slow clients without holding anything that others need.
func (st *stream) pump(j *logfile.Journal) {
	defer st.finish()
	raw, err := st.f.SyscallConn()
	if err != nil {
		return
	}
	for {
		var moved error
		err := raw.Read(func(fd uintptr) bool {
			moved = j.Move(int(fd), &st.src)
			return !errors.Is(moved, logfile.ErrEmpty)
		})
		if err != nil || errors.Is(moved, io.EOF) {
			return
		}
		if drop, ok := errors.AsType[*logfile.DropError](moved); ok {
			if drop.First {
				st.log.Error("log cannot be written; output is dropped", "err", drop.Err)
			}
		} else if moved != nil {
			st.log.Error("output cannot be moved", "err", moved)
			return
		}
		st.catchUp()
	}
}

func (st *stream) finish() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.over = true
	for _, t := range st.taps {
		t.f.Close()
	}
	st.taps = nil
	close(st.done)
}

// close ends pump without waiting for the output's end.
func (st *stream) close() { st.f.Close() }

// empty tells whether the FIFO holds nothing.
func (st *stream) empty() bool {
	raw, err := st.f.SyscallConn()
	if err != nil {
		return true
	}
	n := 0
	if err := raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return true
	}
	return n == 0
}

// share returns a copy of the reading end; -1 if it is closed.
func (st *stream) share() int {
	raw, err := st.f.SyscallConn()
	if err != nil {
		return -1
	}
	copied := -1
	raw.Control(func(fd uintptr) { copied = dup(int(fd)) })
	return copied
}

// tap adds a client; fd is the writing end of its pipe, ours from now on.
func (st *stream) tap(fd int) error {
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
	st.taps = append(st.taps, &tap{f: os.NewFile(uintptr(fd), "attached client")})
	return nil
}

// deliver gives a batch to all taps, as much as they take at once.
func (st *stream) deliver(data []byte) {
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

// slowClient is how long an attached client may take none of its output before it is let go. Until then the container waits, as for any
// slow terminal.
const slowClient = 10 * time.Second

// catchUp writes what the taps did not take at once.
func (st *stream) catchUp() {
	st.mu.Lock()
	taps := slices.Clone(st.taps)
	st.mu.Unlock()
	for _, t := range taps {
		if len(t.late) == 0 {
			continue
		}
		err := t.write(t.late)
		t.late = nil
		if err == nil {
			continue
		}
		st.log.Warn("attached client is let go", "err", err)
		st.mu.Lock()
		st.taps = slices.DeleteFunc(st.taps, func(other *tap) bool { return other == t })
		st.mu.Unlock()
		t.f.Close()
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

// pumpTerminal moves what comes from a terminal's master into the FIFO that the log is written from. From there on a terminal is like any
// other output. The end of the terminal (EIO: no slave is open any more) is the end of the FIFO.
func pumpTerminal(master *os.File, fifo int) {
	defer unix.Close(fifo)
	raw, err := master.SyscallConn()
	if err != nil {
		return
	}
	buffered := make([]byte, 0)
	for {
		var n int64
		var moved error
		err := raw.Read(func(fd uintptr) bool {
			// Blocks when the FIFO is full, never for the terminal, which is non-blocking.
			n, moved = unix.Splice(int(fd), nil, fifo, nil, 64<<10, unix.SPLICE_F_MOVE)
			if errors.Is(moved, unix.EINVAL) { // terminals can be spliced from Linux 6.5 (and before 5.10) on
				n, moved = readWrite(int(fd), fifo, &buffered)
			}
			return !errors.Is(moved, unix.EAGAIN)
		})
		if errors.Is(moved, unix.EINTR) {
			continue
		}
		if err != nil || moved != nil || n == 0 {
			return
		}
	}
}

// readWrite is splice for kernels that cannot splice terminals. A kill between its two halves loses up to 4 KiB.
func readWrite(from, to int, buffer *[]byte) (int64, error) {
	*buffer = slices.Grow((*buffer)[:0], 4096)[:4096]
	n, err := unix.Read(from, *buffer)
	if err != nil {
		return 0, err
	}
	for done := 0; done < n; {
		m, err := unix.Write(to, (*buffer)[done:n])
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		done += m
	}
	return int64(n), nil
}

// dup copies a descriptor, close-on-exec; -1 if it cannot.
func dup(fd int) int {
	if fd < 0 {
		return -1
	}
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1
	}
	return n
}
