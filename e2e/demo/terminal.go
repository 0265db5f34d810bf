package demo

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo terminal of 33 lines and 77 columns.
type terminal struct{ screen, user *os.File }

func openTerminal() (terminal, error) {
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return terminal{}, err
	}

	fd := int(screen.Fd())
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77})
	}

	if err != nil {
		screen.Close()
		return terminal{}, fmt.Errorf("pseudo terminal: %w", err)
	}

	user, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		screen.Close()
		return terminal{}, err
	}

	return terminal{screen, user}, nil
}

func (t terminal) close() { t.user.Close(); t.screen.Close() }
