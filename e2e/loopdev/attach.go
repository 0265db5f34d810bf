package loopdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/loopcontrol"
)

// attachAttempts bounds how often another process may take the free device before this one does.
const attachAttempts = 100

// Attach attaches a free device to a file, which must not be attached already, and returns the device open.
// The kernel detaches it when nobody has it open or mounted any more, so a process that dies leaves none. It
// discards, whatever its last user has told it.
func Attach(path string) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()

	control, err := loopcontrol.Open()
	if err != nil {
		return nil, err
	}
	defer control.Close()

	for range attachAttempts {
		n, err := control.Free()
		if err != nil {
			return nil, err
		}

		device, err := attachTo(fmt.Sprintf("/dev/loop%d", n), backing)
		if err == nil {
			return device, nil
		}
		if !loopcontrol.IsTaken(err) {
			return nil, fmt.Errorf("attach %s: %w", path, err)
		}
	}

	return nil, fmt.Errorf("attach %s: others took each free loop device", path)
}

func attachTo(path string, backing *os.File) (*os.File, error) {
	device, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}

	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:], backing.Name())
	if err := unix.IoctlLoopConfigure(int(device.Fd()), &config); err != nil {
		device.Close()
		return nil, fmt.Errorf("configure %s: %w", path, err)
	}

	return device, nil
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
