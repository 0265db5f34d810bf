package projectquota

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Obey binds this process by quotas for good: ext4 lets who has CAP_SYS_RESOURCE, as root has, go beyond
// them. It works in programs without cgo only.
func Obey() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	const resource = 1 << unix.CAP_SYS_RESOURCE
	if data[0].Effective&resource == 0 {
		return nil
	}

	data[0].Effective &^= resource
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return fmt.Errorf("give CAP_SYS_RESOURCE up: %w", errno)
	}
	return nil
}
