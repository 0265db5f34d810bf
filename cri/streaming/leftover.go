package streaming

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// leftover is how long output is waited for after the process has ended: all that it wrote is in the pipe or terminal by then, but a process
// that it left behind may hold that open for ever.
const leftover = 100 * time.Millisecond

// output reads a process' pipe or terminal. After ended it gives what is there, however slowly that is taken, and then the end.
type output struct{ f *os.File }

// ended starts the countdown.
func (o output) ended() { o.f.SetReadDeadline(time.Now().Add(leftover)) }

func (o output) Read(p []byte) (int, error) {
	n, err := o.f.Read(p)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, err
	}
	raw, err := o.f.SyscallConn()
	if err != nil {
		return 0, io.EOF
	}
	// A file past its deadline reads nothing, though there may be something. The descriptor is non-blocking.
	if cerr := raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), p) }); cerr != nil || err != nil || n <= 0 {
		return 0, io.EOF
	}
	return n, nil
}
