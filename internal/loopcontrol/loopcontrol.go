// Package loopcontrol finds free loop devices by /dev/loop-control (loop(4)) that have nothing left of their
// last users.
//
// Who has a loop device refuse to discard, by queue/discard_max_bytes in sysfs, leaves that to the next user
// of the device, and since Linux 6.9 no number but 0 can be written there afterwards. The kernel forgets it
// when the device is removed, and makes a new one of that number when it is wanted.
package loopcontrol

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Control is /dev/loop-control.
type Control struct{ file *os.File }

// Open opens it; it is not there where the kernel has no loop devices.
func Open() (*Control, error) {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Control{file: f}, nil
}

// Close closes it.
func (c *Control) Close() error { return c.file.Close() }

// Free returns the number of a device that nothing was attached to a moment ago. Others may take it, or
// remove it, before it is attached: then its file is busy, or missing, and another one is to be asked for.
func (c *Control) Free() (int, error) {
	n, err := c.free()
	if err != nil || !refusesToDiscard(n) {
		return n, err
	}

	// One that cannot be removed, because somebody looks at it, is free for all that.
	if err := c.Mend(); err != nil {
		return 0, err
	}
	return c.free()
}

func (c *Control) free() (int, error) {
	n, err := unix.IoctlRetInt(int(c.file.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return 0, fmt.Errorf("find a free loop device: %w", err)
	}
	return n, nil
}

// Mend removes the free devices that refuse to discard: somebody wanted that who has them no more.
func (c *Control) Mend() error {
	queues, err := filepath.Glob("/sys/block/loop*/queue")
	if err != nil {
		return err
	}

	for _, queue := range queues {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(queue)), "loop"))
		if err != nil || !refusesToDiscard(n) || isAttached(n) {
			continue
		}
		if err := c.remove(n); err != nil {
			return err
		}
	}

	return nil
}

// Mend is Control.Mend where there are loop devices.
func Mend() error {
	c, err := Open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Mend()
}

// remove removes a device, unless it is attached or open.
func (c *Control) remove(n int) error {
	err := unix.IoctlSetInt(int(c.file.Fd()), unix.LOOP_CTL_REMOVE, n)
	if err == nil || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return fmt.Errorf("remove loop device %d: %w", n, err)
}

func isAttached(n int) bool {
	_, err := os.Stat(fmt.Sprintf("/sys/block/loop%d/loop/backing_file", n))
	return err == nil
}

// refusesToDiscard reports whether a device could discard, and does not.
func refusesToDiscard(n int) bool {
	return bytesOf(n, "discard_max_bytes") == "0" && bytesOf(n, "discard_max_hw_bytes") != "0"
}

func bytesOf(n int, limit string) string {
	bytes, _ := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/queue/%s", n, limit))
	return strings.TrimSpace(string(bytes))
}

// IsTaken reports whether an error of opening or configuring a free device says that somebody else has taken
// or removed it meanwhile.
func IsTaken(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) ||
		errors.Is(err, unix.ENODEV)
}
