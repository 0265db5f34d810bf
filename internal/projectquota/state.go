package projectquota

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// State is what a file system does about projects.
type State struct {
	FileSystem string // "ext4" or "xfs"; "" for one that knows no projects
	Kernel     bool   // the kernel was built with what it takes
	Counts     bool   // what projects take is counted
	Holds      bool   // limits of projects hold
}

const (
	// The kernel's header linux/dqblk_xfs.h: Q_XGETQSTAT and Q_XQUOTASYNC of the type PRJQUOTA, and flags of
	// struct fs_quota_stat, which has them after a byte and one of padding.
	getState    = ('X'<<8|5)<<8 | 2
	syncQuota   = ('X'<<8|7)<<8 | 2
	stateFlags  = 2
	accounted   = 1 << 4
	enforced    = 1 << 5
	stateBuffer = 256 // the structure is smaller
)

// StateOf returns the state of the file system that a directory is on. It changes nothing.
func StateOf(dir string) (State, error) {
	f, err := os.Open(dir)
	if err != nil {
		return State{}, err
	}
	defer f.Close()

	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &disk); err != nil {
		return State{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	s := State{FileSystem: map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4",
		unix.XFS_SUPER_MAGIC:  "xfs",
	}[disk.Type]}
	if s.FileSystem == "" {
		return s, nil
	}

	var buffer [stateBuffer]byte
	err = quotactl(f, getState, 0, unsafe.Pointer(&buffer))
	if err == nil {
		flags := *(*uint16)(unsafe.Pointer(&buffer[stateFlags]))
		s.Kernel = true
		s.Counts = flags&accounted != 0
		s.Holds = s.Counts && flags&enforced != 0
		return s, nil
	}
	if errors.Is(err, unix.EPERM) {
		return s, fmt.Errorf("state of the quotas of %s: %w", dir, err)
	}

	// Where no quota at all is on, that fails as it does where the kernel has none. This does nothing, and
	// fails only there, or where nothing may be written.
	err = quotactl(f, syncQuota, 0, nil)
	s.Kernel = err == nil || errors.Is(err, unix.EROFS)
	return s, nil
}

// Lack says why limits of projects do not hold, and what to do for them to; "" where they hold.
func (s State) Lack() (why, do string) {
	const remount = "mount it with the option prjquota; the root file system by rootflags=prjquota on the" +
		" kernel's command line"
	switch {
	case s.Holds:
		return "", ""
	case s.FileSystem == "":
		return "its file system has no project quotas", "ext4 and xfs have them"
	case !s.Kernel:
		return fmt.Sprintf("the kernel has no quotas of %s", s.FileSystem),
			"use Linux 5.14 or newer that is built with CONFIG_QUOTA and CONFIG_XFS_QUOTA, as Debian's is"
	case s.Counts:
		return fmt.Sprintf("its %s counts projects and has no limits for them", s.FileSystem), remount
	case s.FileSystem == "ext4":
		return "its ext4 has no feature project, or no quota of it",
			"while it is not mounted: tune2fs -O project,quota -Q prjquota DEVICE; then " + remount
	}
	return "its xfs is mounted without project quotas", remount
}
