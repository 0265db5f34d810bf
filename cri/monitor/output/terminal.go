package output

import (
	"errors"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// PumpTerminal moves the output of a terminal, by its master, into the FIFO that the log is written from;
// from there on it is like any other output. At the end of the terminal (EIO: no slave is open any more) it
// closes fifo.
func PumpTerminal(master *os.File, fifo int) {
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

			// Terminals can be spliced from Linux 6.5 (and before 5.10) on.
			if errors.Is(moved, unix.EINVAL) {
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

// readWrite is splice for kernels that cannot splice terminals. A kill between its two steps loses up to 4
// KiB.
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
