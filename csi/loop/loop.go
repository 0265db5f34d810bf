// Package loop attaches files to loop devices (loop(4)) by ioctl. Loop devices belong to the whole kernel,
// not to a mount namespace, and many programs use them side by side: a device is recognised as ours only by
// the tag that was written into it when it was attached.
package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/loopcontrol"
)

const (
	major          = 7
	maxTag         = 63 // lo_file_name less the closing NUL
	attachAttempts = 256
)

// Options of an attached device.
type Options struct {
	Tag string // at most 63 bytes; names the device's owner and volume

	// AutoClear lets the kernel detach the device when its last user (the mount, and the *os.File that Attach
	// returned) is gone, so that neither kill -9 nor the end of a mount namespace leaves a device behind. It
	// doesn't suit raw block volumes, which nobody may hold open.
	AutoClear bool
}

// Attach connects the regular file at path with a free device and returns it open. Its size is the file's
// size rounded down to 512 bytes. Direct I/O is used where the file system of path can (no page is cached
// twice, and a flush means what it says). It discards, whatever its last user has told it.
func Attach(path string, o Options) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	return AttachFile(backing, o)
}

// AttachFile is Attach for an open file, which need not have a name.
func AttachFile(backing *os.File, o Options) (*os.File, error) {
	path := backing.Name()
	if len(o.Tag) == 0 || len(o.Tag) > maxTag {
		return nil, fmt.Errorf("attach %s: tag %q must have 1 to %d bytes", path, o.Tag, maxTag)
	}

	control, err := loopcontrol.Open()
	if err != nil {
		return nil, fmt.Errorf("attach %s: no loop devices: %w", path, err)
	}
	defer control.Close()

	for range attachAttempts {
		n, err := control.Free()
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", path, err)
		}

		dev, err := attachTo(n, backing, o)
		if err == nil {
			return dev, nil
		}
		if !loopcontrol.IsTaken(err) {
			return nil, fmt.Errorf("attach %s: %w", path, err)
		}
	}

	return nil, fmt.Errorf("attach %s: every loop device was taken by somebody else", path)
}

func attachTo(n int, backing *os.File, o Options) (*os.File, error) {
	dev, err := open(n, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err := configure(dev, backing, o); err != nil {
		dev.Close()
		return nil, fmt.Errorf("configure %s: %w", dev.Name(), err)
	}
	return dev, nil
}

func configure(dev, backing *os.File, o Options) error {
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	copy(config.Info.File_name[:maxTag], o.Tag)
	if o.AutoClear {
		config.Info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}

	direct := config
	direct.Info.Flags |= unix.LO_FLAGS_DIRECT_IO
	err := unix.IoctlLoopConfigure(int(dev.Fd()), &direct)
	if errors.Is(err, unix.EINVAL) {
		// The file system of the file, a tmpfs for example, has no direct I/O.
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
	}

	return err
}

// open opens /dev/loopN and makes the node where /dev is not a devtmpfs.
func open(n, mode int) (*os.File, error) {
	path := fmt.Sprintf("/dev/loop%d", n)
	f, err := os.OpenFile(path, mode, 0)
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	err = unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, uint32(n))))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make device node %s: %w", path, err)
	}
	return os.OpenFile(path, mode, 0)
}

// Find returns the devices whose tag starts with prefix, open for reading, by their tag. The caller closes
// them. To learn its tag, each device of the machine is opened for a moment; if it were opened for writing,
// udev would probe it again when it is closed (udev(7), OPTIONS="watch").
func Find(prefix string) (map[string]*os.File, error) {
	// The file exists for attached devices only.
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}

	found := map[string]*os.File{}
	for _, f := range files {
		n, err := strconv.Atoi(strings.TrimPrefix(strings.Split(f, "/")[3], "loop"))
		if err != nil {
			continue
		}

		dev, err := open(n, os.O_RDONLY)
		if err != nil {
			// Detached meanwhile.
			continue
		}

		tag, err := Tag(dev)
		if err != nil || !strings.HasPrefix(tag, prefix) || found[tag] != nil {
			dev.Close()
			continue
		}

		found[tag] = dev
	}

	return found, nil
}

// Tag reads the tag of an attached device; unix.ENXIO when nothing is attached.
func Tag(dev *os.File) (string, error) {
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return "", err
	}
	return unix.ByteSliceToString(info.File_name[:]), nil
}

// Number returns the device number of a device.
func Number(dev *os.File) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dev.Fd()), &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dev.Name(), Err: err}
	}
	return st.Rdev, nil
}

// Is reports whether the loop device with a number is attached and bears the tag.
func Is(number uint64, tag string) (bool, error) {
	dev, err := open(int(unix.Minor(number)), os.O_RDONLY)
	if errors.Is(err, unix.ENXIO) {
		// Nothing is attached.
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer dev.Close()

	got, err := Tag(dev)
	if errors.Is(err, unix.ENXIO) {
		return false, nil
	}
	return got == tag, err
}

// Backing is the file of a device, as stat(2) says it.
type Backing struct{ Device, Inode uint64 }

// BackingOf returns the file of an attached device.
func BackingOf(dev *os.File) (Backing, error) {
	info, err := unix.IoctlLoopGetStatus64(int(dev.Fd()))
	if err != nil {
		return Backing{}, fmt.Errorf("status of %s: %w", dev.Name(), err)
	}
	return Backing{Device: info.Device, Inode: info.Inode}, nil
}

// Detach frees the device if it still bears the tag. One that is in use is detached by the kernel when its
// last user goes.
func Detach(dev *os.File, tag string) error {
	got, err := Tag(dev)
	if errors.Is(err, unix.ENXIO) || err == nil && got != tag {
		// Gone, or somebody else's by now.
		return nil
	}

	if err != nil {
		return fmt.Errorf("status of %s: %w", dev.Name(), err)
	}

	err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
	if err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", dev.Name(), err)
	}

	return nil
}

// Resize makes the device as large as its file has become.
func Resize(dev *os.File) error {
	if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("resize %s: %w", dev.Name(), err)
	}
	return nil
}

// KeepBlocks makes the device refuse to discard (as fstrim(8) asks for on a timer): a discarded block of the
// device is one that the file does not have any more. When the device is detached, loopcontrol.Mend has to
// follow.
func KeepBlocks(dev *os.File) error {
	path := "/sys/block/" + filepath.Base(dev.Name()) + "/queue/discard_max_bytes"
	if err := os.WriteFile(path, []byte("0"), 0); err != nil {
		return fmt.Errorf("make %s refuse to discard: %w", dev.Name(), err)
	}
	return nil
}

// Size returns the device's size in bytes.
func Size(dev *os.File) (int64, error) {
	var size uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, dev.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, fmt.Errorf("size of %s: %w", dev.Name(), errno)
	}
	return int64(size), nil
}

// TagOf returns the tag of a thing that an owner keeps in a loop device. Owners choose an instance that is
// unique on the machine. With "" for the thing it is the prefix of all of the owner's tags.
func TagOf(instance, thing string) string { return "trivet/" + instance + "/" + thing }
