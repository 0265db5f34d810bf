package btrfspool

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// What the pool is to others.
var (
	_ volume.Backend  = (*Pool)(nil)
	_ volume.Checker  = (*Pool)(nil)
	_ volume.Enforcer = (*Pool)(nil)
	_ volume.Keeper   = (*Pool)(nil)
	_ volume.Grouper  = (*Pool)(nil)
	_ volume.Surveyor = (*Pool)(nil)

	_ volume.Inspector = (*Pool)(nil)
	_ volume.Traceless = (*Pool)(nil)

	_ volume.Limitable  = (*Pool)(nil)
	_ volume.Encrypting = (*Pool)(nil)
	_ publish.OwnDevice = (*Pool)(nil)
	_ publish.Unlocker  = (*Pool)(nil)

	_ publish.Backend     = (*Pool)(nil)
	_ publish.BlockDevice = (*Pool)(nil)
	_ publish.Grower      = (*Pool)(nil)
)

// Complete fills in the file system, see volume.Backend. While the pool is down it is ErrUnavailable.
func (p *Pool) Complete(s *volume.Spec, options []string) error {
	_, leave, err := p.enter()
	if err != nil {
		// Whatever it is, ErrDamaged included: of a volume that is yet to be created nothing is lost.
		return fmt.Errorf("%w: %s", volume.ErrUnavailable, err.Error())
	}

	defer leave()

	switch {
	case isImage(*s), s.FSType == "" && s.Limits != volume.Limits{}:
		return p.images.complete(s, options)
	case s.Reserve && p.file == nil:
		return fmt.Errorf("%w: backend %s reserves nothing on a disk that it shares", volume.ErrInvalid, Name)
	}

	if err := checkOptions(target.ParseOptions(options)); err != nil {
		return err
	}

	s.FSType = "btrfs"
	return nil
}

// checkOptions refuses options of the file system: all volumes share one.
func checkOptions(o target.Options) error {
	if len(o.FS) > 0 {
		return fmt.Errorf("%w: mount option %q: backend %s takes none of a file system",
			volume.ErrInvalid, o.FS[0], Name)
	}
	return nil
}

// Create makes an empty volume, see volume.Backend. The token of its origin is the transaction that it was
// made in.
func (p *Pool) Create(s volume.Spec) (volume.Origin, error) {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return volume.Origin{}, err
	}
	defer leave()

	// Who uses the image of an interrupted Create would get the device of the new one.
	if err := p.images.erase(s.ID); err != nil {
		return volume.Origin{}, err
	}
	if _, err := p.shares.reserve(fs, s); err != nil {
		return volume.Origin{}, err
	}

	return p.create(fs, s)
}

func (p *Pool) create(fs *subvolumes, s volume.Spec) (volume.Origin, error) {
	if isImage(s) {
		if _, err := p.images.attachable(); err != nil {
			return volume.Origin{}, err
		}
	}

	sub, err := fs.create(s)
	origin := volume.Origin{Token: sub.Created, Pool: fs.info.UUID}
	if err == nil {
		err = p.shares.restrain(fs, s, sub)
	}
	if err != nil || !isImage(s) {
		return origin, err
	}
	return origin, p.images.make(s)
}

// IsTraceless reports whether a volume is a subvolume without a file in it, see volume.Traceless.
func (*Pool) IsTraceless(s volume.Spec) bool { return !isImage(s) }

// List returns the IDs of all volumes.
func (p *Pool) List() ([]string, error) {
	fs, leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return fs.list()
}

// Empty reports whether there is nothing in a volume.
func (p *Pool) Empty(id string) (bool, error) {
	fs, leave, err := p.enter()
	if err != nil {
		return false, err
	}
	defer leave()
	return fs.empty(id)
}

// Destroy deletes a volume, on a full disk, too.
func (p *Pool) Destroy(id string) error {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return err
	}
	defer leave()
	if err := p.images.erase(id); err != nil {
		return err
	}

	p.shares.forget(id)
	was, _ := fs.inspect(id)
	if err := btrfs.Destroy(fs.dir, id); err != nil {
		return err
	}

	p.shares.release(id, was)
	return nil
}

// Commit commits the running transaction, see volume.Backend.
func (p *Pool) Commit() error {
	fs, leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()

	if err := btrfs.Sync(fs.dir); err != nil {
		return err
	}
	if p.file == nil {
		return nil
	}

	return p.file.baseline().clear()
}

// Grow raises the limit of a volume. It is larger at once, in use or not. One that is reserved for is so as a
// whole before.
func (p *Pool) Grow(s volume.Spec) error {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return err
	}
	defer leave()
	return p.shares.enlarge(fs, s, p.stretch)
}

// Copy makes a volume or snapshot with the content of another one, see volume.Copier.
func (p *Pool) Copy(s, source volume.Spec) (volume.Spec, volume.Origin, error) {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return s, volume.Origin{}, err
	}
	defer leave()

	sub, err := fs.snapshot(s, source)
	if err != nil {
		return s, volume.Origin{}, err
	}
	if s.Keeps, err = p.shares.keepsOf(fs, source); err != nil {
		return s, volume.Origin{}, err
	}

	if err := p.shares.keep(fs, s, source); err != nil {
		return s, volume.Origin{}, err
	}
	if err := p.copyKey(s, source); err != nil {
		return s, volume.Origin{}, err
	}

	origin := volume.Origin{Token: sub.Created, Pool: fs.info.UUID}
	if s.Snapshot {
		return s, origin, nil
	}
	if err := p.shares.limit(fs, s, sub); err != nil {
		return s, origin, err
	}

	return s, origin, p.stretch(s)
}

// Device attaches a raw block volume, see publish.BlockDevice.
func (p *Pool) Device(s volume.Spec) (*os.File, error) {
	_, leave, err := p.enterToWrite()
	if err != nil {
		return nil, err
	}
	defer leave()
	files, err := p.images.attachable()
	if err != nil {
		return nil, err
	}
	return files.Device(s)
}

// GrowStaged finishes the growth of an image in use, see publish.Grower.
func (p *Pool) GrowStaged(s volume.Spec, root *os.File) error {
	_, leave, err := p.enterToWrite()
	if err != nil {
		return err
	}
	defer leave()
	files, err := p.images.attachable()
	if err != nil {
		return err
	}
	return files.GrowStaged(s, root)
}

// Enforce charges the volume for subvolumes that a pod has made in it, see volume.Enforcer.
func (p *Pool) Enforce(s volume.Spec) error {
	fs, leave, err := p.enter()
	if err != nil {
		return err
	}
	defer leave()
	sub, err := fs.inspect(s.ID)
	if err != nil {
		return err
	}
	_, err = p.shares.lower(fs, s.ID)
	return errors.Join(btrfs.Enforce(fs.dir, sub), err)
}

// Mount returns a mount of the volume's root directory, see publish.Backend.
func (p *Pool) Mount(s volume.Spec, o target.Options) (*target.Tree, error) {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return nil, err
	}
	defer leave()

	if isImage(s) {
		return p.images.mount(s, o)
	}
	if err := checkOptions(o); err != nil {
		return nil, err
	}

	root, err := btrfs.Open(fs.dir, s.ID)
	if err != nil {
		return nil, err
	}
	defer root.Close()

	return target.Clone(root, o)
}

// Usage returns what a volume is charged for, see publish.Backend.
func (p *Pool) Usage(s volume.Spec, root *os.File) (publish.Usage, error) {
	if isImage(s) {
		files, err := p.images.attachable()
		if err != nil {
			return publish.Usage{}, err
		}
		return files.Usage(s, root)
	}

	fs, leave, err := p.enter()
	if err != nil {
		return publish.Usage{}, err
	}
	defer leave()
	used, err := fs.used(s.ID)
	if err != nil {
		return publish.Usage{}, fmt.Errorf("usage of volume %s: %w", s.ID, err)
	}
	used = min(used, s.Size)
	return publish.Usage{Total: s.Size, Used: used, Available: s.Size - used}, nil
}

// overhead is what btrfs keeps for itself, as measured with volumes filled to their limits, many small files
// included: checksums and trees below 5 %, the system and log chunks a fixed amount.
func overhead(size int64) int64 { return size/20 + 128<<20 }

// Capacity returns what the pool can promise, see space.Backend.
func (p *Pool) Capacity(promised space.Promised) (space.Capacity, error) {
	fs, leave, err := p.enter()
	if err != nil {
		return space.Capacity{}, err
	}
	defer leave()

	// The sum of all.
	limits := promised.Bytes + promised.Count*limitOf(0) + promised.Bytes/128
	exceeding, err := p.shares.exceeding(fs)
	if err != nil {
		return space.Capacity{}, err
	}
	if p.file == nil {
		return fs.capacityOfDisk(p.root, p.most, promised.Each(), limits, exceeding)
	}

	size, _, err := p.file.stat()
	if err != nil {
		return space.Capacity{}, err
	}

	held, err := fs.heldNow(p.shares)
	if err != nil {
		return space.Capacity{}, err
	}

	held += exceeding

	p.shares.reservation.promised.Store(limits)
	largest := size + p.file.disk()
	if p.most > 0 {
		largest = min(largest, p.most)
	}

	// What deleted volumes still hold, and others beyond their size, is neither spare nor to be promised.
	here := size - overhead(size) - held
	return space.Capacity{
		Limit:     max(largest, size) - overhead(largest) - held,
		Unwritten: max(0, limits-here),
		Spare:     max(0, here-limits),
	}, nil
}

// capacityOfDisk is that of a pool at root that shares a btrfs disk, of at most most bytes (0: all).
func (s *subvolumes) capacityOfDisk(
	root string,
	most int64,
	promises []space.Promise,
	limits, held int64,
) (space.Capacity, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return space.Capacity{}, &os.PathError{Op: "statfs", Path: root, Err: err}
	}

	unwritten := limits
	for _, promise := range promises {
		used, err := s.used(promise.ID)
		if err != nil {
			// Being made or deleted: it counts as unwritten.
			continue
		}

		unwritten -= min(used, limitOf(promise.Bytes))
	}

	size := int64(st.Blocks) * st.Bsize
	if most > 0 {
		size = min(size, most)
	}

	return space.Capacity{Limit: size - overhead(size) - held, Unwritten: unwritten}, nil
}
