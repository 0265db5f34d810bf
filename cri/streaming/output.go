package streaming

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long output is waited for after the process has ended. All that it wrote is in the pipe
// or terminal by then, but a process that it left behind may hold that open without end.
const outputGrace = 100 * time.Millisecond

// processOutput reads a process's pipe or terminal. After limitOutput it gives what is there when the grace
// period is over, however slowly that is read, and then io.EOF.
type processOutput struct {
	f *os.File

	// over is true once the grace period is over; left are the bytes to be read after that.
	over bool
	left int
}

// limitOutput starts the grace period of a file that a processOutput reads, when the process has ended.
func limitOutput(f *os.File) { f.SetReadDeadline(time.Now().Add(outputGrace)) }

// Read reads output, and io.EOF at its end.
func (o *processOutput) Read(p []byte) (n int, err error) {
	if !o.over {
		if n, err = o.f.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}

	// A file past its deadline reads nothing, though there may be something: so the descriptor is read, which
	// is non-blocking.
	raw, err := o.f.SyscallConn()
	if err != nil {
		return 0, io.EOF
	}

	controlErr := raw.Control(func(fd uintptr) {
		if !o.over {
			o.over = true
			o.left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		}

		n, err = unix.Read(int(fd), p[:min(len(p), o.left)])
	})
	if controlErr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}

	o.left -= n
	return n, nil
}
