// Package nulldevice makes devices like /dev/null for processes in containers. None is the host's own: crun
// gives the stdio of an exec to the container's user, and root in a container may change the mode of what it
// holds open, which would be the mode of /dev/null for everybody on the node.
package nulldevice

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Open returns a descriptor of a new device, which is alone in a file system that ends with it.
func Open() (int, error) {
	fd, err := create()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		// In a user namespace: whatever a container is there, the host's device is not its to change.
		fd, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open a null device: %w", err)
	}
	return fd, nil
}

// create makes a tmpfs that is mounted nowhere. Runtimes know the device by its number, and open the
// container's own in its place when they can; people know it by its name.
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

	// of /dev/null, in the kernel's list of devices
	device := int(unix.Mkdev(1, 3))
	if err := unix.Mknodat(root, "dev/null", unix.S_IFCHR|0o666, device); err != nil {
		return -1, err
	}

	// whatever the umask
	if err := unix.Fchmodat(root, "dev/null", 0o666, 0); err != nil {
		return -1, err
	}

	return unix.Openat(root, "dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
}
