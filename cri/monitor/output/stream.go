// Package output moves what a container writes, from its FIFO or its terminal, into its log and to the
// clients that are attached.
package output

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
	"github.com/trivet-node/trivet/cri/logjournal"
)

// Stream is one output of a container on its way from the FIFO to the log and to attached clients. A nil
// Stream is an output that the container does not have: Attach and Share accept it.
type Stream struct {
	fifo *os.File // reading end, non-blocking
	src  logjournal.Source
	log  *slog.Logger
	done chan struct{} // closed at the end of the output

	// mu guards all below.
	mu      sync.Mutex
	clients []*client
	over    bool
}

// Open opens the reading end of the FIFO at path. The output waits in it until Pump runs. key names the
// stream in the journal, name is its name in the log ("stdout" or "stderr"); log may be nil.
func Open(path, key, name string, log *logfile.File, logger *slog.Logger) (*Stream, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}

	// A larger pipe extends the time that a container can write while no monitor reads. Where the user's pipe
	// budget is used up, it stays at 64 KiB.
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 256<<10)

	st := &Stream{
		fifo: os.NewFile(uintptr(fd), path),
		log:  logger.With("stream", key),
		done: make(chan struct{}),
	}

	st.src = logjournal.Source{
		Key:    key,
		Stream: name,
		Log:    log,
		Tap:    st.deliver,
	}

	return st, nil
}

// Pump moves output until it ends. Each turn moves one batch, and waits for slow clients without holding a
// slot of the journal.
func (st *Stream) Pump(j *logjournal.Journal) {
	defer st.finish()

	raw, err := st.fifo.SyscallConn()
	if err != nil {
		return
	}

	for {
		var moved error
		err := raw.Read(func(fd uintptr) bool {
			moved = j.Move(int(fd), &st.src)
			return !errors.Is(moved, logjournal.ErrEmpty)
		})
		if err != nil || errors.Is(moved, io.EOF) {
			return
		}

		// A full disk must not stop the container; the first loss is logged.
		drop, dropped := errors.AsType[*logfile.DropError](moved)
		switch {
		case dropped && drop.First:
			st.log.Error("log cannot be written; output is dropped", "err", drop.Err)
		case moved != nil && !dropped:
			st.log.Error("output cannot be moved", "err", moved)
			return
		}

		st.deliverRest()
	}
}

func (st *Stream) finish() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.over = true
	for _, c := range st.clients {
		c.pipe.Close()
	}
	st.clients = nil
	close(st.done)
}

// Done returns a channel that is closed at the end of the output.
func (st *Stream) Done() <-chan struct{} { return st.done }

// Close ends Pump without waiting for the end of the output.
func (st *Stream) Close() { st.fifo.Close() }

// Empty reports whether the FIFO holds nothing.
func (st *Stream) Empty() bool {
	raw, err := st.fifo.SyscallConn()
	if err != nil {
		return true
	}

	n := 0
	if err := raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return true
	}
	return n == 0
}

// Share returns a copy of the reading end; -1 if it is closed.
func (st *Stream) Share() int {
	if st == nil {
		return -1
	}

	raw, err := st.fifo.SyscallConn()
	if err != nil {
		return -1
	}

	copied := -1
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
			copied = n
		}
	})

	return copied
}
