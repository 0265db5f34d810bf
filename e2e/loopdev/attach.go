package loopdev

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// attachAttempts bounds how often another process may take the free device before this one does.
const attachAttempts = 100

// Attach attaches a free device to a file, which must not be attached already, and returns the device open.
// The kernel detaches it when nobody has it open or mounted any more, so a process that dies leaves none.
func Attach(path string) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()

	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()

	for range attachAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}

		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}

		config := unix.LoopConfig{Fd: uint32(backing.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:], path)
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}

		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", path, device.Name(), err)
		}
	}

	return nil, fmt.Errorf("attach %s: others took each free loop device", path)
}

// Of returns the path of the device that is attached to a file; "" when none is.
func Of(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", path, err)
	}

	all, err := List()
	if err != nil {
		return "", err
	}

	for _, d := range all {
		if d.file == (fileID{st.Dev, st.Ino}) {
			return d.Path, nil
		}
	}

	return "", nil
}
