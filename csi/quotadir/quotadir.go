// Package quotadir holds each volume as a directory of the disk, in a project of its own whose quota is the
// volume's size (ext4 and xfs, see internal/projectquota). Making, growing and deleting one takes a moment,
// files are the disk's own, and statfs(2) in a volume has the volume's size.
//
// The name of a directory says which volume and which project it is of, ID.PROJECT: a pod can change the
// project of all that is in its volume, and never that name.
package quotadir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// Name of the backend.
const Name = "quota"

// Config of Dirs.
type Config struct {
	Dir      string // volumes are kept in Dir/quota
	Instance string // unique to Dir

	// Held says that volumes were made: their directories are not made if they are not there.
	Held bool
}

// Dirs are the volumes of a directory.
type Dirs struct {
	place
	dir     string // Config.Dir
	late    bool   // volumes were not there at the start, so that their numbers were not found
	numbers *numbers
	trash   *trash
	strays  *strays
	reports *reports
}

// What the directories are to others. They have no devices: no raw block volumes, and no limits of I/O.
var (
	_ volume.Backend   = (*Dirs)(nil)
	_ volume.Checker   = (*Dirs)(nil)
	_ volume.Enforcer  = (*Dirs)(nil)
	_ volume.Keeper    = (*Dirs)(nil)
	_ volume.Inspector = (*Dirs)(nil)
	_ volume.Traceless = (*Dirs)(nil)
	_ publish.Backend  = (*Dirs)(nil)
)

// Paths of the directories of volumes, and of those that are being deleted, in a data directory.
func Paths(dataDir string) (volumes, trash string) {
	return filepath.Join(dataDir, "quota", "volumes"), filepath.Join(dataDir, "quota", "trash")
}

// Open finds the volumes, and makes nothing where there are none: the first one does. Where limits of
// projects do not hold it fails then; volumes, and what is left of deleted ones, wait until they hold again,
// see Check.
func Open(cfg Config) (*Dirs, error) {
	d := &Dirs{dir: cfg.Dir}
	d.volumes, d.deleted = Paths(cfg.Dir)
	d.held = cfg.Held
	lack := d.Check(false)
	if lack != nil && !d.held && !hasAny(d.volumes) && !hasAny(d.deleted) {
		return nil, lack
	}

	d.numbers = newNumbers(cfg.Instance)
	d.reports = &reports{}
	d.trash = newTrash(d.deleted, d.numbers, d.reports)
	d.strays = newStrays(d)
	if _, err := os.Lstat(d.volumes); err == nil {
		if err := d.prepare(); err != nil {
			return nil, err
		}
	}
	d.late = d.lack() != nil
	return d, d.find()
}

// find finds what is there, by its names. What was taken out of a volume before the driver was restarted is
// outside still, in use or not.
func (d *Dirs) find() error {
	for _, dir := range []string{d.volumes, d.deleted} {
		names, err := namesIn(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, name := range names {
			if id, project, ok := Parse(name); ok {
				d.numbers.found(id, project, dir == d.volumes)
			}
		}
	}
	for _, id := range d.numbers.ids() {
		d.strays.mayBeIn(id)
	}
	if d.isHeld() {
		d.trash.wake()
	}
	return nil
}

// hasAny reports whether there is a directory of a volume.
func hasAny(dir string) bool {
	names, err := namesIn(dir)
	return err == nil && slices.ContainsFunc(names, func(name string) bool {
		_, _, ok := Parse(name)
		return ok
	}) || err != nil && !errors.Is(err, fs.ErrNotExist)
}

func namesIn(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Check returns why the sizes of volumes do not hold, or that their directories are not there; nil if neither
// is so. See volume.Checker.
func (d *Dirs) Check(bool) error {
	_, err := d.state()
	return err
}

// state is that of the disk; ErrUnavailable if limits do not hold there, or the directories are not there.
func (d *Dirs) state() (projectquota.State, error) {
	state, err := projectquota.StateOf(d.dir)
	if err != nil {
		return state, fmt.Errorf("%w: project quotas of %s: %w", volume.ErrUnavailable, d.dir, err)
	}
	if why, do := state.Lack(); why != "" {
		return state, fmt.Errorf("%w: no limits of projects on the disk of %s: %s; %s",
			volume.ErrUnavailable, d.dir, why, do)
	}
	return state, d.lack()
}

// String describes what holds the volumes, for logs.
func (d *Dirs) String() string {
	state, err := d.state()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("directories in %s (%s), with project quotas", d.volumes, state.FileSystem)
}

// Complete fills in the file system, see volume.Backend: it is the disk's.
func (d *Dirs) Complete(s *volume.Spec, options []string) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: backend %s "+format, append([]any{volume.ErrInvalid, Name}, args...)...)
	}

	state, err := d.state()
	if err != nil {
		return err
	}
	kind := state.FileSystem
	switch {
	case s.Access != volume.Filesystem:
		return refuse("has no raw block volumes")
	case s.Reserve:
		return refuse("reserves nothing on a disk that it shares")
	case !s.NoCOW:
		return refuse("has no checksums (nocow false)")
	case s.FSType != "" && s.FSType != kind:
		return refuse("has the file system of its disk, which is %s, not %s", kind, s.FSType)
	}
	if o := target.ParseOptions(options); len(o.FS) > 0 {
		return refuse("takes no mount option of a file system: %q", o.FS[0])
	}

	s.FSType = kind
	return nil
}

// Create makes an empty directory in a project that is nobody else's, see volume.Backend.
func (d *Dirs) Create(s volume.Spec) (volume.Origin, error) {
	if err := d.Check(false); err != nil {
		return volume.Origin{}, err
	}
	if err := errors.Join(d.makeOnce(), d.Destroy(s.ID)); err != nil {
		return volume.Origin{}, err
	}

	for range attempts {
		project, err := d.numbers.take(d.volumes, s.ID)
		if err != nil {
			return volume.Origin{}, err
		}
		if err := d.make(s, project); !errors.Is(err, errTaken) {
			return volume.Origin{}, err
		}

		// Its number stays taken until the next start.
		if err := os.Remove(d.path(s.ID, project)); err != nil {
			return volume.Origin{}, err
		}
		d.numbers.leave(s.ID)
	}
	return volume.Origin{}, fmt.Errorf("%w: all numbers that were tried belong to projects of others",
		volume.ErrUnavailable)
}

const attempts = 16

// errTaken says that somebody else has found the same number free at that moment.
var errTaken = errors.New("the project has files of others")

// make makes the directory of a volume in an unused project. The limit comes last: who has lost the project
// to somebody else must not change his.
func (d *Dirs) make(s volume.Spec, project uint32) error {
	path := d.path(s.ID, project)
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	f, err := openDir(path)
	if err != nil {
		return err
	}
	defer f.Close()

	if err := projectquota.Put(f, project); err != nil {
		return err
	}
	used, _, err := projectquota.Look(f, project)
	if err != nil {
		return err
	}
	if used.Inodes != 1 {
		return errTaken
	}

	if err := d.limit(f, s, project); err != nil {
		return err
	}
	if err := f.Chmod(0o755); err != nil {
		return err
	}

	// Both file systems write what was done before in the same order: the name is there, too.
	return f.Sync()
}

// limit has the size of a volume hold, and writes nothing where it does. Two volumes cannot have one limit.
func (d *Dirs) limit(f *os.File, s volume.Spec, project uint32) error {
	if d.numbers.isShared(project) {
		return fmt.Errorf("%w: several directories in %s say project %d; move away those that were copied"+
			" there, and restart the driver", volume.ErrDamaged, filepath.Dir(d.volumes), project)
	}
	wanted, err := d.limitsOf(s)
	if err != nil {
		return err
	}
	_, is, err := projectquota.Look(f, project)
	if err != nil || is == wanted {
		return err
	}
	return projectquota.Limit(f, project, wanted)
}

// inodeRatio is for how many bytes of a volume it has an inode, as an ext4 of its size would.
const inodeRatio = 16 << 10

// limitsOf are those of a volume. One with nothing but empty files must not take the inodes of all others,
// which are a fixed number on ext4.
func (d *Dirs) limitsOf(s volume.Spec) (projectquota.Limits, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(d.dir, &disk); err != nil {
		return projectquota.Limits{}, &os.PathError{Op: "statfs", Path: d.dir, Err: err}
	}
	ratio := uint64(inodeRatio)
	if disk.Type == unix.EXT4_SUPER_MAGIC && disk.Files > 0 {
		ratio = max(ratio, disk.Blocks*uint64(disk.Bsize)/disk.Files)
	}
	return projectquota.Limits{Bytes: uint64(s.Size), Inodes: max(64, uint64(s.Size)/ratio)}, nil
}

// IsTraceless reports that a volume that was not finished is an empty directory, see volume.Traceless.
func (*Dirs) IsTraceless(volume.Spec) bool { return true }

// Recover has the project and the size of a volume be as its name and record say, see volume.Backend.
func (d *Dirs) Recover(s volume.Spec, origin volume.Origin) (volume.Origin, error) {
	f, project, err := d.open(s.ID)
	if errors.Is(err, fs.ErrNotExist) && d.findAgain(d.numbers, s.ID) {
		f, project, err = d.open(s.ID)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return origin, cmp.Or(d.lack(), fmt.Errorf("%w: %w", volume.ErrLost, err))
	}
	if err != nil {
		return origin, err
	}
	defer f.Close()

	if err := d.Check(false); err != nil {
		return origin, err
	}
	return origin, errors.Join(put(f, project), d.limit(f, s, project))
}

// Grow raises the limit of a volume. It is larger at once, in use or not, see volume.Backend.
func (d *Dirs) Grow(s volume.Spec) error {
	if err := d.Check(false); err != nil {
		return err
	}
	f, project, err := d.open(s.ID)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.limit(f, s, project)
}

// List returns the IDs of all volumes.
func (d *Dirs) List() ([]string, error) { return d.numbers.ids(), nil }

// Empty reports whether there is nothing in a volume, see volume.Inventory.
func (d *Dirs) Empty(id string) (bool, error) {
	f, _, err := d.open(id)
	if err != nil {
		return false, cmp.Or(d.lack(), err)
	}
	defer f.Close()
	return treewalk.IsEmpty(f)
}

// Keep deletes what was destroyed, and finds what was taken out of projects, until ctx ends; see
// volume.Keeper.
func (d *Dirs) Keep(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { d.trash.run(ctx) })
	d.strays.run(ctx)
}

func (d *Dirs) path(id string, project uint32) string {
	return filepath.Join(d.volumes, nameOf(id, project))
}

// open opens the directory of a volume; fs.ErrNotExist if there is none.
func (d *Dirs) open(id string) (*os.File, uint32, error) {
	project, known := d.numbers.of(id)
	if !known {
		return nil, 0, fmt.Errorf("the directory of volume %s in %s: %w", id, d.volumes, fs.ErrNotExist)
	}
	f, err := openDir(d.path(id, project))
	return f, project, err
}

func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}
