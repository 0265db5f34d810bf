package target

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is a mount that is not attached to any path yet. It is closed after use.
type Tree struct{ fd int }

// Clone returns a further mount of the file or directory f, without the mounts below it. The options change
// its attributes; those of the file system are not looked at.
func Clone(f *os.File, o Options) (*Tree, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", f.Name(), err)
	}

	t := &Tree{fd}
	a := o.all()
	if a == (attributes{}) {
		return t, nil
	}

	attr := unix.MountAttr{Attr_set: a.set, Attr_clr: a.clear}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		t.Close()
		return nil, fmt.Errorf("set attributes of the mount of %s: %w", f.Name(), err)
	}

	return t, nil
}

// New mounts the file system fsType of a block device.
func New(fsType, device string, o Options) (*Tree, error) {
	t, err := newTree(fsType, device, o)
	if err != nil {
		return nil, fmt.Errorf("mount %s of %s: %w", fsType, device, err)
	}
	return t, nil
}

func newTree(fsType, device string, o Options) (*Tree, error) {
	fs, err := configure(fsType, o)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)

	if err := unix.FsconfigSetString(fs, "source", device); err != nil {
		return nil, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, reason(fs, err)
	}

	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(o.all().set))
	if err != nil {
		return nil, reason(fs, err)
	}

	return &Tree{fd}, nil
}

// Reconfigure gives the file system that is mounted on path other options of its own. Those that are not
// named stay as they are, and so do the attributes of its mounts.
func Reconfigure(path string, o Options) error {
	fs, err := unix.Fspick(unix.AT_FDCWD, path, unix.FSPICK_CLOEXEC|unix.FSPICK_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("reconfigure what is mounted on %s: %w", path, err)
	}

	if fs, err = setOptions(fs, o); err != nil {
		return fmt.Errorf("reconfigure what is mounted on %s: %w", path, err)
	}
	defer unix.Close(fs)

	if err := unix.FsconfigReconfigure(fs); err != nil {
		return fmt.Errorf("reconfigure what is mounted on %s: %w", path, reason(fs, err))
	}

	return nil
}

// configure opens a context for a file system to be mounted, with the options that are its own. The caller
// closes it.
func configure(fsType string, o Options) (fs int, err error) {
	if fs, err = unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC); err != nil {
		return -1, err
	}
	return setOptions(fs, o)
}

// setOptions gives a context the options of its file system. One that does not take them all is closed.
func setOptions(fs int, o Options) (int, error) {
	for _, opt := range o.FS {
		key, value, ok := strings.Cut(opt, "=")
		var err error
		switch {
		case key == "source":
			// The device is not for the options to choose.
			err = unix.EINVAL
		case ok:
			err = unix.FsconfigSetString(fs, key, value)
		default:
			err = unix.FsconfigSetFlag(fs, key)
		}

		if err != nil {
			err = fmt.Errorf("mount option %q: %w", opt, reason(fs, err))
			unix.Close(fs)
			return -1, err
		}
	}

	return fs, nil
}

// CheckOptions returns an error if the file system does not know all those options. Nothing is mounted.
func CheckOptions(fsType string, o Options) error {
	if len(o.FS) == 0 {
		return nil
	}
	fs, err := configure(fsType, o)
	if err != nil {
		return fmt.Errorf("%s: %w", fsType, err)
	}
	return unix.Close(fs)
}

// reason adds what the file system says about its refusal; fsopen(2): messages are read from the descriptor
// of the context.
func reason(fs int, err error) error {
	var buf [512]byte
	if n, readErr := unix.Read(fs, buf[:]); readErr == nil && n > 0 {
		return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[:n])))
	}
	return err
}

// Open opens the root directory of the tree, attached or not.
func (t *Tree) Open() (*os.File, error) {
	fd, err := unix.Openat(t.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the root of a mount: %w", err)
	}
	return os.NewFile(uintptr(fd), "mount"), nil
}

// Attach puts the tree on a point, whose directory or file must exist.
func (t *Tree) Attach(p *Point) error {
	err := unix.MoveMount(t.fd, "", int(p.parent.Fd()), p.name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mount on %s: %w", p.path, err)
	}
	return nil
}

// AttachTo puts the tree on a path that nobody else can change.
func (t *Tree) AttachTo(path string) error {
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", path, err)
	}
	return nil
}

// Close frees the tree. One that was attached stays mounted.
func (t *Tree) Close() error {
	err := unix.Close(t.fd)
	t.fd = -1
	if err != nil {
		return fmt.Errorf("close mount tree: %w", err)
	}
	return nil
}

// Supported returns an error if the kernel does not have the calls of this package: mount_setattr(2), the
// latest, came with Linux 5.12.
func Supported() error {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{})
	if errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}
