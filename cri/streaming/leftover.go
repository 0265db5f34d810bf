package streaming

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// leftover is how long output is waited for after the process has ended: all that it wrote is in the pipe or
// terminal by then, but a process that it left behind may hold that open forever.
const leftover = 100 * time.Millisecond

// output reads a process' pipe or terminal. When the process has ended and the countdown is over, it gives
// what is there at that time, however slowly that is taken, and then the end.
type output struct {
	f    *os.File
	left int // bytes to be read after the countdown
	over bool
}

// ended starts the countdown.
func ended(f *os.File) { f.SetReadDeadline(time.Now().Add(leftover)) }

func (o *output) Read(p []byte) (n int, err error) {
	if !o.over {
		if n, err = o.f.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}

	// A file past its deadline reads nothing, though there may be something. The descriptor is non-blocking.
	raw, err := o.f.SyscallConn()
	if err != nil {
		return 0, io.EOF
	}

	cerr := raw.Control(func(fd uintptr) {
		if !o.over {
			o.over = true
			o.left, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		}

		n, err = unix.Read(int(fd), p[:min(len(p), o.left)])
	})
	if cerr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}

	o.left -= n
	return n, nil
}
