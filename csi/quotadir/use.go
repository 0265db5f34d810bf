package quotadir

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/datadir"
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

// place is where the directories of volumes, and of deleted ones, are.
type place struct {
	volumes, deleted string

	// mu guards held: there are volumes, or were. Nothing is made from then on: what is not there is not
	// mounted.
	mu   sync.Mutex
	held bool
}

// makeOnce makes the directories for the first volume.
func (p *place) makeOnce() error {
	if p.isHeld() {
		return nil
	}
	return p.prepare()
}

// prepare makes what is missing of the directories, and has them be as they are to be: root's alone, and in
// no project that the data directory may be in. Nothing could be moved from one that hands its project down
// into another.
func (p *place) prepare() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, dir := range []string{p.volumes, p.deleted} {
		if err := errors.Join(os.MkdirAll(dir, 0o700), datadir.Narrow(dir)); err != nil {
			return err
		}
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		err = errors.Join(projectquota.Put(f, 0), f.Close())
		if err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	p.held = true
	return nil
}

func (p *place) isHeld() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// lack returns volume.ErrUnavailable if there are volumes and one of the directories is not there, as while
// its disk is not mounted. An empty one in its place would say that the volumes are gone.
func (p *place) lack() error {
	if !p.isHeld() {
		return nil
	}
	for _, dir := range []string{p.volumes, p.deleted} {
		if _, err := os.Lstat(dir); err != nil {
			return fmt.Errorf("%w: the directory of volumes: %v; mount its disk, or make an empty one if"+
				" what was in it is lost for good", volume.ErrUnavailable, err)
		}
	}
	return nil
}

// Inspect lists the volumes once, see volume.Inspector. If their directory is not there its disk may not be
// mounted, and nothing is lost.
func (p *place) Inspect() (volume.Inspection, error) {
	names, err := namesIn(p.volumes)
	if errors.Is(err, fs.ErrNotExist) {
		gone := fmt.Errorf("%w: %w", volume.ErrDamaged, err)
		return volume.Inspection{Of: func(volume.Spec) error { return gone }}, nil
	}
	if err != nil {
		return volume.Inspection{}, err
	}

	for i, name := range names {
		names[i] = IDOf(name)
	}
	slices.Sort(names)
	return volume.Inspection{Of: func(s volume.Spec) error {
		if _, there := slices.BinarySearch(names, s.ID); !there {
			return fmt.Errorf("%w: its directory is not in %s", volume.ErrLost, p.volumes)
		}
		return nil
	}}, nil
}

// findAgain finds the number of a volume whose directory was not there when the driver was started. The
// caller has locked the volume.
func (p *place) findAgain(n *numbers, id string) (found bool) {
	if _, known := n.of(id); known {
		return false
	}
	names, _ := namesIn(p.volumes)
	for _, name := range names {
		if named, project, ok := Parse(name); ok && named == id {
			n.found(id, project, true)
			found = true
		}
	}
	return found
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
