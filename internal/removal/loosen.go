package removal

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// binding are the flags of the kernel's header linux/fs.h that keep a file from being deleted or moved, or
// others from being moved into a directory: immutable, append-only, and that of directories of a project.
const binding = 0x10 | 0x20 | 0x20000000

// Loosen takes from an open file, or directory, the flags by which who has CAP_LINUX_IMMUTABLE keeps all
// others from changing and deleting it, and that by which a directory hands its project down.
func Loosen(f *os.File) error { return loosen(int(f.Fd())) }

func loosen(fd int) error {
	flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&binding == 0 {
		return err
	}
	return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^binding))
}

// loosenEntry is Loosen for an entry of a directory. A device is not opened: that may do something.
func loosenEntry(dir int, name string) error {
	handle, err := beneath.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, beneath.NoLinks|beneath.OneFileSystem)
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO:
	default:
		return unix.EPERM
	}

	f, err := os.OpenFile(beneath.Path(handle), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return Loosen(f)
}
