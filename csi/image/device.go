package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/retry"
)

// Mount mounts the volume's file system over its device, see publish.Backend. The kernel detaches the device
// with the last mount.
func (x *Images) Mount(s volume.Spec, o target.Options) (*target.Tree, error) {
	dev, err := x.attach(s.ID, true)
	if err != nil {
		return nil, err
	}
	defer dev.Close()

	o = besideSource(s, o)
	if s.FSType == "ext4" {
		growUnmounted(dev, s.Size)
	}

	tree, err := target.New(s.FSType, dev.Name(), o)
	if err != nil || s.Source == "" || o.ReadOnly {
		return tree, err
	}

	// A copy may be larger than its source, and nobody else asks for it to grow.
	if err := growTree(tree, dev, s); err != nil {
		return nil, errors.Join(err, tree.Close())
	}

	return tree, nil
}

// besideSource lets a copy be mounted that has the UUID of its source, which xfs refuses otherwise.
func besideSource(s volume.Spec, o target.Options) target.Options {
	if s.FSType == "xfs" {
		o.FS = append(slices.Clone(o.FS), "nouuid")
	}
	return o
}

// MountFile mounts the file system in an open file that has the content of a volume. The file is written to,
// even if the mount is read-only: what the file system had under way is finished first. The kernel lets go of
// the file with the last mount.
func (x *Images) MountFile(f *os.File, s volume.Spec, o target.Options) (*target.Tree, error) {
	dev, err := loop.AttachFile(f, loop.Options{Tag: x.tag(s.ID), AutoClear: true})
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	return target.New(s.FSType, dev.Name(), besideSource(s, o))
}

// OpenRaw opens the file of a raw block volume that has no device, with flags of open(2).
func (x *Images) OpenRaw(s volume.Spec, flags int) (*os.File, error) {
	if flags&(os.O_WRONLY|os.O_RDWR) != 0 {
		if err := markUsed(x.Path(s.ID)); err != nil {
			return nil, err
		}
	}
	return boundedfile.Open(x.Path(s.ID), flags)
}

func growTree(tree *target.Tree, dev *os.File, s volume.Spec) error {
	root, err := tree.Open()
	if err != nil {
		return err
	}
	defer root.Close()

	err = growFileSystem(dev, root, s)
	if errors.Is(err, volume.ErrInUse) {
		// The kernel demands a capability: it was tried before it was mounted.
		return nil
	}
	return err
}

// Device attaches a raw block volume, see publish.BlockDevice. It stays attached until Detach.
func (x *Images) Device(s volume.Spec) (*os.File, error) { return x.attach(s.ID, false) }

// attach finds the volume's device or attaches one. One file never has two: two file systems on the same
// bytes would destroy each other.
func (x *Images) attach(id string, autoClear bool) (*os.File, error) {
	if dev, err := x.find(id); dev != nil || err != nil {
		return dev, err
	}
	if err := markUsed(x.Path(id)); err != nil {
		return nil, err
	}
	return loop.Attach(x.Path(id), loop.Options{Tag: x.tag(id), AutoClear: autoClear})
}

// find returns the volume's device, nil when there is none.
func (x *Images) find(id string) (*os.File, error) {
	found, err := loop.Find(x.tag(id))
	if err != nil {
		return nil, err
	}

	var dev *os.File
	for tag, f := range found {
		if tag == x.tag(id) {
			dev = f
			continue
		}

		// Of a volume whose ID begins with this one.
		f.Close()
	}

	return dev, nil
}

// Number returns the number of the volume's device, see publish.OwnDevice.
func (x *Images) Number(id string, last uint64) (uint64, error) {
	if last != 0 {
		if is, err := loop.Is(last, x.tag(id)); is || err != nil {
			return last, err
		}
	}

	dev, err := x.find(id)
	if dev == nil || err != nil {
		return 0, err
	}
	defer dev.Close()
	return loop.Number(dev)
}

// Attached reports whether the volume has a device, see publish.BlockDevice.
func (x *Images) Attached(id string) (bool, error) {
	dev, err := x.find(id)
	if dev != nil {
		dev.Close()
	}
	return dev != nil, err
}

// Detach frees the volume's device, see publish.BlockDevice. The kernel detaches one that is still in use
// when its last user closes it.
func (x *Images) Detach(id string) error {
	dev, err := x.find(id)
	if dev == nil || err != nil {
		return err
	}
	defer dev.Close()
	return loop.Detach(dev, x.tag(id))
}

// A released device may stay attached for a moment without being in use: programs that look for a loop device
// open all of them.
const (
	freeTimeout = time.Second
	freePoll    = 5 * time.Millisecond
)

// Free detaches the volume's device for good; volume.ErrInUse if it stays in use, in whatever mount
// namespace.
func (x *Images) Free(id string) error {
	if err := x.Detach(id); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), freeTimeout)
	defer cancel()

	for range retry.Every(ctx, freePoll) {
		attached, err := x.Attached(id)
		if err != nil || !attached {
			return err
		}
	}

	return fmt.Errorf("%w: %s is still mounted somewhere", volume.ErrInUse, id)
}

// GrowsStaged reports that images grow in two steps, see publish.Grower.
func (x *Images) GrowsStaged(volume.Spec) bool { return true }

// GrowStaged lets device and file system take the file's new size while they are in use, see publish.Grower.
func (x *Images) GrowStaged(s volume.Spec, root *os.File) error {
	dev, err := x.find(s.ID)
	if err != nil {
		return err
	}
	if dev == nil {
		return fmt.Errorf("%w: %s has no device", volume.ErrNotStaged, s.ID)
	}
	defer dev.Close()

	return growFileSystem(dev, root, s)
}

func growFileSystem(dev, root *os.File, s volume.Spec) error {
	if err := growDevice(dev, s.Size); err != nil {
		return err
	}

	switch s.FSType {
	case "ext4":
		return growExt4(dev, root, s.Size)
	case "xfs":
		return growXFS(root, s.Size)
	}

	return nil
}

// growDevice makes a device that is smaller as large as its file.
func growDevice(dev *os.File, size int64) error {
	have, err := loop.Size(dev)
	if err != nil || have >= size {
		return err
	}
	return loop.Resize(dev)
}

// Usage returns what the volume's file system says, see publish.Backend.
func (x *Images) Usage(_ volume.Spec, root *os.File) (publish.Usage, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root.Fd()), &fs); err != nil {
		return publish.Usage{}, &os.PathError{Op: "statfs", Path: root.Name(), Err: err}
	}

	return publish.Usage{
		Total:           int64(fs.Blocks) * fs.Bsize,
		Used:            int64(fs.Blocks-fs.Bfree) * fs.Bsize,
		Available:       int64(fs.Bavail) * fs.Bsize,
		InodesTotal:     int64(fs.Files),
		InodesUsed:      int64(fs.Files - fs.Ffree),
		InodesAvailable: int64(fs.Ffree),
	}, nil
}
