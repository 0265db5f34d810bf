package quotadir

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/projectquota"
)

// Enforce has the root directory of a volume in use hand its project down, see volume.Enforcer: a pod may
// change that, as it may with all its files. Those are looked at by Keep.
func (d *Dirs) Enforce(s volume.Spec) error {
	f, project, err := d.open(s.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	d.strays.mayBeIn(s.ID)
	return put(f, project)
}

// Mount returns a mount of the volume's directory, see publish.Backend. Somebody may have taken the limit
// off since the driver was started.
func (d *Dirs) Mount(s volume.Spec, o target.Options) (*target.Tree, error) {
	if len(o.FS) > 0 {
		return nil, fmt.Errorf("%w: mount option %q: backend %s takes none of a file system",
			volume.ErrInvalid, o.FS[0], Name)
	}
	if err := d.Check(false); err != nil {
		return nil, err
	}
	f, project, err := d.open(s.ID)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := errors.Join(put(f, project), d.limit(f, s, project)); err != nil {
		return nil, err
	}
	return target.Clone(f, o)
}

// OpenRaw refuses: no volume is a raw block volume.
func (*Dirs) OpenRaw(s volume.Spec, _ int) (*os.File, error) {
	return nil, fmt.Errorf("%w: %s is no raw block volume", volume.ErrInvalid, s.ID)
}

// Usage returns what a volume's project takes, see publish.Backend.
func (d *Dirs) Usage(s volume.Spec, root *os.File) (publish.Usage, error) {
	project, known := d.numbers.of(s.ID)
	if !known {
		return publish.Usage{}, fmt.Errorf("usage of volume %s: %w", s.ID, fs.ErrNotExist)
	}
	took, limits, err := projectquota.Look(root, project)
	if err != nil {
		return publish.Usage{}, fmt.Errorf("usage of volume %s: %w", s.ID, err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(d.dir, &disk); err != nil {
		return publish.Usage{}, &os.PathError{Op: "statfs", Path: d.dir, Err: err}
	}

	used, inodes := min(int64(took.Bytes), s.Size), min(took.Inodes, limits.Inodes)
	return publish.Usage{
		Total:           s.Size,
		Used:            used,
		Available:       min(s.Size-used, int64(disk.Bavail)*disk.Bsize),
		InodesTotal:     int64(limits.Inodes),
		InodesUsed:      int64(inodes),
		InodesAvailable: int64(min(limits.Inodes-inodes, disk.Ffree)),
	}, nil
}

// xfsInode is how many bytes of the disk an inode of xfs takes, which no project is charged for.
const xfsInode = 512

// Capacity has no limit but that of the disk, see space.Backend.
func (d *Dirs) Capacity(promised space.Promised) (space.Capacity, error) {
	state, err := d.state()
	if err != nil {
		return space.Capacity{}, err
	}
	disk, err := os.Open(d.dir)
	if err != nil {
		return space.Capacity{}, err
	}
	defer disk.Close()

	var unwritten int64
	for _, p := range promised.Each() {
		var used projectquota.Usage
		var limits projectquota.Limits
		if project, known := d.numbers.of(p.ID); known {
			if used, limits, err = projectquota.Look(disk, project); err != nil {
				return space.Capacity{}, err
			}
		}
		unwritten += max(0, p.Bytes-int64(used.Bytes))
		if state.FileSystem == "xfs" {
			unwritten += xfsInode * max(0, int64(limits.Inodes)-int64(used.Inodes))
		}
	}
	return space.Capacity{Limit: math.MaxInt64 / 2, Unwritten: unwritten}, nil
}
