// Package nulldevice makes devices like /dev/null for processes in containers, which must not get the host's
// own: crun makes the container's user the owner of the stdio of an exec, and root in a container may change
// the mode of what it has open, which would be the mode of /dev/null for everybody on the node.
package nulldevice

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open returns a descriptor of a new device, alone in a filesystem that ends when the descriptor is closed.
// The caller closes it.
func Open() (int, error) {
	fd, err := create()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		// In a user namespace no process, and so no container, can change the host's device.
		fd, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open a null device: %w", err)
	}
	return fd, nil
}

// create makes the device in a tmpfs that is not mounted. Runtimes recognise it by its number, and open the
// container's own in its place when they can; people recognise it by its name.
func create() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)

	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}

	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)

	if err := unix.Mkdirat(root, "dev", 0o755); err != nil {
		return -1, err
	}

	// The number of /dev/null in the kernel's list of devices.
	device := int(unix.Mkdev(1, 3))
	if err := unix.Mknodat(root, "dev/null", unix.S_IFCHR|0o666, device); err != nil {
		return -1, err
	}

	// The umask may have changed the mode.
	if err := unix.Fchmodat(root, "dev/null", 0o666, 0); err != nil {
		return -1, err
	}

	return unix.Openat(root, "dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
}
