package loopfile

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// Mount mounts the volume's file system over its device, see publish.Backend. The kernel detaches the device
// with the last mount.
func (files *Files) Mount(s volume.Spec, o target.Options) (*target.Tree, error) {
	dev, err := files.attach(s.ID, true)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	if s.FSType == "ext4" {
		growUnmounted(dev, s.Size)
	}
	return target.New(s.FSType, dev.Name(), o)
}

// Device attaches a raw block volume, see publish.BlockDevice. It stays attached until Detach.
func (files *Files) Device(s volume.Spec) (*os.File, error) { return files.attach(s.ID, false) }

// attach finds the volume's device or attaches one. One file never has two: two file systems on the same
// bytes would destroy each other.
func (files *Files) attach(id string, autoClear bool) (*os.File, error) {
	if dev, err := files.find(id); dev != nil || err != nil {
		return dev, err
	}
	if err := markUsed(files.path(id)); err != nil {
		return nil, err
	}
	return loop.Attach(files.path(id), loop.Options{Tag: files.tag(id), AutoClear: autoClear})
}

// find returns the volume's device, nil when there is none.
func (files *Files) find(id string) (*os.File, error) {
	found, err := loop.Find(files.tag(id))
	if err != nil {
		return nil, err
	}

	var dev *os.File
	for tag, f := range found {
		if tag == files.tag(id) {
			dev = f
			continue
		}

		// Of a volume whose ID begins with this one.
		f.Close()
	}

	return dev, nil
}

// Attached reports whether the volume has a device, see publish.BlockDevice.
func (files *Files) Attached(id string) (bool, error) {
	dev, err := files.find(id)
	if dev != nil {
		dev.Close()
	}
	return dev != nil, err
}

// Detach frees the volume's device, see publish.BlockDevice. The kernel detaches one that is still in use
// when its last user closes it.
func (files *Files) Detach(id string) error {
	dev, err := files.find(id)
	if dev == nil || err != nil {
		return err
	}
	defer dev.Close()
	return loop.Detach(dev, files.tag(id))
}

// GrowStaged lets device and file system take the file's new size while they are in use, see publish.Grower.
func (files *Files) GrowStaged(s volume.Spec, root *os.File) error {
	dev, err := files.find(s.ID)
	if err != nil {
		return err
	}
	if dev == nil {
		return fmt.Errorf("%w: %s has no device", volume.ErrNotStaged, s.ID)
	}
	defer dev.Close()

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
func (files *Files) Usage(_ volume.Spec, root *os.File) (publish.Usage, error) {
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
