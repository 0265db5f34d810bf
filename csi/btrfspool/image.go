package btrfspool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// Raw block volumes, and those with a file system other than btrfs, are an image: the only file in their
// subvolume, which pods never see. So they have snapshots and clones as all others.

// imageName is the name of that file.
const imageName = "image"

// images are those files. It is nothing where there are no loop devices.
type images struct {
	dir      string // of volumes
	files    *image.Images
	keys     keyfile.Dir
	reserved bool // all bytes of an image are
}

func newImages(instance, root string, keys keyfile.Dir) *images {
	x := &images{dir: filepath.Join(root, "volumes"), keys: keys}

	// On a btrfs disk there may be no loop devices, and volumes nevertheless.
	x.files, _ = image.New(instance, keys, x.path)
	return x
}

// attachable returns the files where there are loop devices; volume.ErrUnavailable where there are none.
func (x *images) attachable() (*image.Images, error) {
	if x.files == nil {
		return nil, fmt.Errorf("%w: backend %s has no loop devices", volume.ErrUnavailable, Name)
	}
	return x.files, nil
}

func (x *images) path(id string) string { return filepath.Join(x.dir, id, imageName) }

func isImage(s volume.Spec) bool {
	return s.Access == volume.Block || s.Encryption != "" || s.FSType != "" && s.FSType != "btrfs"
}

// complete is Complete for an image. It is reserved for: a file system in it, or who uses the device,
// cannot know that the pool could be out of room.
func (x *images) complete(s *volume.Spec, options []string) error {
	if x.files == nil {
		return fmt.Errorf("%w: backend %s has no loop devices for access %s with file system %q",
			volume.ErrInvalid, Name, s.Access, s.FSType)
	}
	if !s.NoCOW {
		// A loop device has no answer but EIO to a write that lacks room.
		return fmt.Errorf("%w: backend %s: an image is overwritten in place; nocow: false is not served",
			volume.ErrInvalid, Name)
	}
	if err := x.files.Complete(s, options); err != nil {
		return fmt.Errorf("backend %s: %w", Name, err)
	}
	s.Reserve = x.reserved
	s.Pooled = true
	return nil
}

// make makes the file of a new volume.
func (x *images) make(s volume.Spec) error {
	f, err := os.OpenFile(x.path(s.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	image.MarkUnused(f)
	if err := f.Truncate(s.Size); err != nil {
		return err
	}
	if s.FSType == "" {
		// Nobody else syncs it, and a subvolume without a file is no volume.
		return f.Sync()
	}

	if err := x.files.Format(s); err != nil {
		return err
	}
	return x.files.MakeKey(s)
}

// mount mounts the file system in an image, that of a snapshot included.
func (x *images) mount(s volume.Spec, o target.Options) (*target.Tree, error) {
	files, err := x.attachable()
	if err != nil {
		return nil, err
	}
	if s.Snapshot {
		return x.mountCopy(files, s, o)
	}
	return files.Mount(s, o)
}

// mountCopy mounts a copy of a snapshot's image, which has to be written for that. The copy shares the blocks
// of the snapshot, has no name, and is gone with the last mount.
func (x *images) mountCopy(files *image.Images, s volume.Spec, o target.Options) (*target.Tree, error) {
	from, err := os.Open(x.path(s.ID))
	if err != nil {
		return nil, err
	}
	defer from.Close()

	copied, err := os.OpenFile(filepath.Dir(x.dir), unix.O_TMPFILE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("copy the image of %s: %w", s.ID, err)
	}
	defer copied.Close()

	// Blocks are shared only among files that treat them the same way.
	if err := btrfs.OverwriteInPlace(copied); err != nil {
		return nil, err
	}
	if err := unix.IoctlFileClone(int(copied.Fd()), int(from.Fd())); err != nil {
		return nil, fmt.Errorf("copy the image of %s: %w", s.ID, err)
	}

	return files.MountFile(copied, s, o)
}

// stretch makes the file of an image as large as the volume, which it may not be yet.
func (x *images) stretch(s volume.Spec) error {
	if !isImage(s) {
		return nil
	}

	path := x.path(s.ID)
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", volume.ErrLost, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	}
	if st.Size() >= s.Size {
		return nil
	}

	return os.Truncate(path, s.Size)
}

// erase detaches what may be attached of a volume, and erases the key file; volume.ErrInUse if the volume is
// in use.
func (x *images) erase(id string) error {
	var st unix.Stat_t
	err := unix.Lstat(x.path(id), &st)
	switch {
	case x.files == nil, errors.Is(err, unix.ENOENT):
	case err != nil:
		return &os.PathError{Op: "stat", Path: x.path(id), Err: err}
	default:
		if err := x.files.Free(id); err != nil {
			return err
		}
	}
	return x.keys.Erase(id)
}

// copyKey has a copy of an encrypted volume have the key of that.
func (x *images) copyKey(s, source volume.Spec) error {
	if s.Encryption == "" {
		return nil
	}
	return x.keys.Copy(s.ID, source.ID)
}

// checkKey returns volume.ErrDamaged for an encrypted volume whose key file is gone.
func (x *images) checkKey(s volume.Spec) error {
	if s.Encryption == "" {
		return nil
	}
	return x.keys.Check(s.ID)
}

// CheckEncryption refuses what an image cannot encrypt, see volume.Encrypting.
func (x *images) CheckEncryption(s volume.Spec) error {
	files, err := x.attachable()
	if err != nil {
		return err
	}
	return files.CheckEncryption(s)
}

// EraseKey erases the key file of a volume that is not there, see volume.Encrypting.
func (x *images) EraseKey(id string) error { return x.keys.Erase(id) }

// Unlock gives an encrypted volume its key, see publish.Unlocker.
func (x *images) Unlock(s volume.Spec, root *os.File, secret string) (*os.File, error) {
	files, err := x.attachable()
	if err != nil {
		return nil, err
	}
	return files.Unlock(s, root, secret)
}

// Lock takes the key of an encrypted volume away, see publish.Unlocker.
func (x *images) Lock(root *os.File) error {
	files, err := x.attachable()
	if err != nil {
		return err
	}
	return files.Lock(root)
}

// CheckLimits refuses limits of what is not an image, see volume.Limitable.
func (*images) CheckLimits(s volume.Spec) error {
	if isImage(s) {
		return nil
	}
	return fmt.Errorf("%w: input and output are limited by device, and a subvolume of backend %s shares one"+
		" with others; a volume that is made with limits, or with file system xfs or ext4, has its own",
		volume.ErrInvalid, Name)
}

// Number returns the number of the device of a volume, see publish.OwnDevice.
func (x *images) Number(id string, last uint64) (uint64, error) {
	if x.files == nil {
		return 0, nil
	}
	return x.files.Number(id, last)
}

// Attached reports whether a volume has a device, see publish.BlockDevice.
func (x *images) Attached(id string) (bool, error) {
	if x.files == nil {
		return false, nil
	}
	return x.files.Attached(id)
}

// Detach frees the device of a volume, see publish.BlockDevice.
func (x *images) Detach(id string) error {
	if x.files == nil {
		return nil
	}
	return x.files.Detach(id)
}

// GrowsStaged reports whether a volume is an image, see publish.Grower.
func (*images) GrowsStaged(s volume.Spec) bool { return isImage(s) }

// IsImage reports whether a volume or snapshot is an image, so that it has blocks.
func (*images) IsImage(s volume.Spec) bool { return s.Backend == Name && isImage(s) }

// OpenRaw opens the file of a volume that is an image, or of a snapshot of one, with flags of open(2).
func (p *Pool) OpenRaw(s volume.Spec, flags int) (*os.File, error) {
	if !p.IsImage(s) {
		// What a pod has made in its volume may have that name.
		return nil, fmt.Errorf("%w: %s is not an image", volume.ErrInvalid, s.ID)
	}

	_, leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := p.images.attachable()
	if err != nil {
		return nil, err
	}
	return files.OpenRaw(s, flags)
}
