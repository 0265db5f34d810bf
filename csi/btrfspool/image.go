package btrfspool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/volume"
)

// Raw block volumes, and those with a file system other than btrfs, are an image: the only file in their
// subvolume, which pods never see. So they have snapshots and clones as all others.

// imageName is the name of that file.
const imageName = "image"

func (p *Pool) imagePath(id string) string { return filepath.Join(p.root, "volumes", id, imageName) }

func isImage(s volume.Spec) bool {
	return s.Access == volume.Block || s.FSType != "" && s.FSType != "btrfs"
}

// completeImage is Complete for an image. It is reserved for: a file system in it, or who uses the device,
// cannot know that the pool could be out of room.
func (p *Pool) completeImage(s *volume.Spec, options []string) error {
	if p.images == nil {
		return fmt.Errorf("%w: backend %s has no loop devices for access %s with file system %q",
			volume.ErrInvalid, Name, s.Access, s.FSType)
	}
	if err := p.images.Complete(s, options); err != nil {
		return fmt.Errorf("backend %s: %w", Name, err)
	}
	s.Reserve = p.file != nil
	return nil
}

// makeImage makes the file of a new volume.
func (p *Pool) makeImage(s volume.Spec) error {
	f, err := os.OpenFile(p.imagePath(s.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	image.MarkUnused(f)
	if err := f.Truncate(s.Size); err != nil {
		return err
	}

	return p.images.Format(s)
}

// stretch makes the file of an image as large as the volume, which it may not be yet.
func (p *Pool) stretch(s volume.Spec) error {
	if !isImage(s) {
		return nil
	}

	path := p.imagePath(s.ID)
	st, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	}
	if st.Size() >= s.Size {
		return nil
	}

	return os.Truncate(path, s.Size)
}

// freeImage detaches what may be attached of a volume; volume.ErrInUse if that is in use.
func (p *Pool) freeImage(id string) error {
	var st unix.Stat_t
	err := unix.Lstat(p.imagePath(id), &st)
	if p.images == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: p.imagePath(id), Err: err}
	}
	return p.images.Free(id)
}

// Device attaches a raw block volume, see publish.BlockDevice.
func (p *Pool) Device(s volume.Spec) (*os.File, error) {
	_, leave, err := p.enterToWrite()
	if err != nil {
		return nil, err
	}
	defer leave()
	if p.images == nil {
		return nil, fmt.Errorf("%w: backend %s has no loop devices", volume.ErrUnavailable, Name)
	}
	return p.images.Device(s)
}

// Attached reports whether a volume has a device, see publish.BlockDevice.
func (p *Pool) Attached(id string) (bool, error) {
	if p.images == nil {
		return false, nil
	}
	return p.images.Attached(id)
}

// Detach frees the device of a volume, see publish.BlockDevice.
func (p *Pool) Detach(id string) error {
	if p.images == nil {
		return nil
	}
	return p.images.Detach(id)
}

// GrowsStaged reports whether a volume is an image, see publish.Grower.
func (*Pool) GrowsStaged(s volume.Spec) bool { return isImage(s) }

// GrowStaged finishes the growth of an image in use, see publish.Grower.
func (p *Pool) GrowStaged(s volume.Spec, root *os.File) error {
	_, leave, err := p.enterToWrite()
	if err != nil {
		return err
	}
	defer leave()
	return p.images.GrowStaged(s, root)
}
