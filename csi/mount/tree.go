package mount

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree is a mount that is not yet anywhere in the file system. It is closed after use.
type Tree struct{ fd int }

// Options are those of mount(8), sorted by who understands them: attributes belong to the mount, the rest to
// the file system.
type Options struct {
	ReadOnly bool
	set      uint64
	clear    uint64
	FS       []string
}

var attributes = map[string]Options{
	"rw":          {clear: unix.MOUNT_ATTR_RDONLY},
	"defaults":    {},
	"suid":        {clear: unix.MOUNT_ATTR_NOSUID},
	"nosuid":      {set: unix.MOUNT_ATTR_NOSUID},
	"dev":         {clear: unix.MOUNT_ATTR_NODEV},
	"nodev":       {set: unix.MOUNT_ATTR_NODEV},
	"exec":        {clear: unix.MOUNT_ATTR_NOEXEC},
	"noexec":      {set: unix.MOUNT_ATTR_NOEXEC},
	"noatime":     {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"relatime":    {clear: unix.MOUNT_ATTR__ATIME},
	"strictatime": {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nodiratime":  {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":    {clear: unix.MOUNT_ATTR_NODIRATIME},
}

// forMount8 are options that tell mount(8) and the boot what to do; no kernel knows them.
var forMount8 = []string{
	"_netdev", "auto", "noauto", "fail", "nofail",
	"user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
}

func onlyForMount8(option string) bool {
	return slices.Contains(forMount8, option) || strings.HasPrefix(option, "x-") ||
		strings.HasPrefix(option, "X-") ||
		strings.HasPrefix(option, "comment=")
}

// ParseOptions sorts options, each of which may hold several separated by commas. Those that are for mount(8)
// alone are dropped.
func ParseOptions(options []string) Options {
	var o Options
	for _, list := range options {
		for opt := range strings.SplitSeq(list, ",") {
			a, ok := attributes[opt]
			switch {
			case opt == "", onlyForMount8(opt):
			case opt == "ro":
				o.ReadOnly = true
			case ok:
				o.clear |= a.clear
				o.set = o.set&^a.clear | a.set
			default:
				o.FS = append(o.FS, opt)
			}
		}
	}

	return o
}

// Clone is a mount of the file or directory f and nothing below it.
func Clone(f *os.File, o Options) (*Tree, error) {
	fd, err := unix.OpenTree(int(f.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("clone the mount of %s: %w", f.Name(), err)
	}

	t := &Tree{fd}
	attr := unix.MountAttr{Attr_set: o.set, Attr_clr: o.clear}
	if o.ReadOnly {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
		attr.Attr_clr &^= unix.MOUNT_ATTR_RDONLY
	}

	if attr == (unix.MountAttr{}) {
		return t, nil
	}

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

	attr := o.set
	if o.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}

	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attr))
	if err != nil {
		return nil, reason(fs, err)
	}

	return &Tree{fd}, nil
}

// configure opens a context for a file system to be mounted, with the options that are its own.
func configure(fsType string, o Options) (fs int, err error) {
	if fs, err = unix.Fsopen(fsType, unix.FSOPEN_CLOEXEC); err != nil {
		return -1, err
	}

	for _, opt := range o.FS {
		key, value, ok := strings.Cut(opt, "=")
		switch {
		case key == "source":
			// not for others to choose
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

// CheckOptions asks the kernel whether a file system knows all those options. Nothing is mounted.
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

// reason adds what the file system says about its refusal (fsopen(2): messages are read from the context's
// descriptor).
func reason(fs int, err error) error {
	var buf [512]byte
	if n, readErr := unix.Read(fs, buf[:]); readErr == nil && n > 0 {
		return fmt.Errorf("%w (%s)", err, strings.TrimSpace(string(buf[:n])))
	}
	return err
}

// Attach puts the tree on a place, whose directory or file must exist.
func (t *Tree) Attach(p *Place) error {
	if err := unix.MoveMount(t.fd, "", int(p.parent.Fd()), p.name, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", p.path, err)
	}
	return nil
}

// AttachTo puts the tree on a path of our own.
func (t *Tree) AttachTo(path string) error {
	if err := unix.MoveMount(t.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", path, err)
	}
	return nil
}

// Close frees the tree. A tree that was attached stays mounted, one that was not is gone.
func (t *Tree) Close() error {
	err := unix.Close(t.fd)
	t.fd = -1
	if err != nil {
		return errors.New("close mount tree: " + err.Error())
	}
	return nil
}

// Supported reports whether the kernel has the calls of this package: mount_setattr(2), the youngest, came
// with Linux 5.12.
func Supported() error {
	if err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{}); errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}
