package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Linux is the Kernel of this machine. It needs root.
type Linux struct{}

// CreateNamespaces makes and pins namespaces; see Kernel.
func (Linux) CreateNamespaces(
	pins map[namespace.Kind]string, users *namespace.Users, inside func() error,
) error {
	if users == nil {
		return namespace.Create(pins, inside)
	}
	return namespace.CreateOwned(pins, *users, inside)
}

// PinPID pins the PID namespace of a process; see Kernel.
func (Linux) PinPID(pid int, path string) error { return namespace.Pin(namespace.PID, pid, path) }

// Unpin removes a pin; see Kernel.
func (Linux) Unpin(path string) error { return namespace.Unpin(path) }

// InNamespace runs f in a pinned namespace; see Kernel.
func (Linux) InNamespace(path string, f func() error) error { return namespace.Do(f, path) }

// MountShm mounts a tmpfs of 64 MiB, the size that containers know from other runtimes.
func (Linux) MountShm(dir string, owner int) error {
	const flags = unix.MS_NOEXEC | unix.MS_NOSUID | unix.MS_NODEV
	options := fmt.Sprintf("mode=1777,size=65536k,uid=%d,gid=%d", owner, owner)
	if err := unix.Mount("shm", dir, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("mount /dev/shm of the pod: %w", err)
	}
	return nil
}

// Unmount unmounts a directory; see Kernel.
func (Linux) Unmount(dir string) error { return mount.Unmount(dir) }
