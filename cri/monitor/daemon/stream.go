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
