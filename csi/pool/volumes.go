package pool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/csi/volume"
)

var _ volume.Backend = (*Pool)(nil)

// Complete implements volume.Maker.
func (p *Pool) Complete(s *volume.Spec, options []string) error {
	if err := p.enter(); err != nil {
		// Whatever it is: of a volume that is yet to be made nothing is lost.
		return fmt.Errorf("%w: %s", volume.ErrUnavailable, err.Error())
	}

	defer p.leave()

	switch {
	case s.Access == volume.Block:
		return fmt.Errorf("%w: backend %s has no raw block volumes", volume.ErrInvalid, Name)
	case s.FSType != "" && s.FSType != "btrfs":
		return fmt.Errorf("%w: backend %s has no file system %q", volume.ErrInvalid, Name, s.FSType)
	}

	if err := checkOptions(options); err != nil {
		return err
	}

	s.FSType = "btrfs"
	return nil
}

// checkOptions refuses options of the file system: all volumes share one.
func checkOptions(options []string) error {
	if fs := mount.ParseOptions(options).FS; len(fs) > 0 {
		return fmt.Errorf("%w: mount option %q: backend %s takes none of a file system",
			volume.ErrInvalid, fs[0], Name)
	}
	return nil
}

// limit is what a volume's quota group may hold. The group is also charged for the volume's own metadata; the
// addition keeps that from coming out of the bytes that were asked for, and stays below one percent.
func limit(size int64) int64 { return size + size/128 + 32<<10 }

// Create implements volume.Maker. The token is the transaction that the volume was made in.
func (p *Pool) Create(s volume.Spec) (volume.Origin, error) {
	if err := p.enterToWrite(); err != nil {
		return volume.Origin{}, err
	}
	defer p.leave()
	created, err := p.create(s)
	return volume.Origin{Token: created, Pool: p.info.UUID}, err
}

func (p *Pool) create(s volume.Spec) (uint64, error) {
	if err := btrfs.Destroy(p.volumes, s.ID); err != nil {
		return 0, err
	}
	if err := btrfs.Create(p.volumes, s.ID); err != nil {
		return 0, err
	}

	root, err := btrfs.Open(p.volumes, s.ID)
	if err != nil {
		return 0, err
	}
	defer root.Close()

	sub, err := btrfs.Inspect(root)
	if err != nil {
		return 0, err
	}
	if err := btrfs.Limit(p.volumes, sub, limit(s.Size)); err != nil {
		return 0, err
	}
	if err := root.Chmod(0o755); err != nil {
		return 0, err
	}

	if s.NoCOW {
		if err := noCOW(root); err != nil {
			return 0, err
		}
	}

	if p.image == "" {
		// nobody could tell after a power loss whether it had ever been on disk
		err = btrfs.Commit(root)
	}

	return sub.Created, err
}

// noCOW lets files that are made below overwrite their blocks in place (chattr +C): for databases, at the
// price of checksums.
func noCOW(root *os.File) error {
	// FS_NOCOW_FL
	const fsNoCOW = 0x00800000
	flags, err := unix.IoctlGetUint32(int(root.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(root.Fd()), unix.FS_IOC_SETFLAGS, int(flags|fsNoCOW))
	}
	if err != nil {
		return fmt.Errorf("switch off copy-on-write of %s: %w", root.Name(), err)
	}
	return nil
}

// Recover implements volume.Maker. An acknowledged volume may be missing after a power loss: its record is
// synced at once, the transaction that made it up to half a minute later. Nothing in it can have been synced
// by its user then, for that would have committed the transaction: an empty volume is what a disk would show,
// too. Missing though its transaction was committed, or though it was made in another pool, it is lost, or
// somewhere else.
func (p *Pool) Recover(s volume.Spec, origin volume.Origin) (volume.Origin, error) {
	if err := p.enter(); err != nil {
		return origin, err
	}
	defer p.leave()

	if origin.Pool != "" && origin.Pool != p.info.UUID {
		return origin, fmt.Errorf("%w: it is in pool %s, and the pool here is %s",
			volume.ErrDamaged, origin.Pool, p.info.UUID)
	}

	root, err := btrfs.Open(p.volumes, s.ID)
	switch {
	case err == nil:
		defer root.Close()

		return volume.Origin{Token: origin.Token, Pool: p.info.UUID}, p.recoverLimit(root, s)

	case !errors.Is(err, os.ErrNotExist):
		return origin, fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	case origin.Pool == "":
		return origin, fmt.Errorf("%w: %w; its record, of an earlier version, does not name its pool",
			volume.ErrDamaged, err)
	case origin.Token <= p.settled:
		return origin, fmt.Errorf(
			"%w: %w; it was made in transaction %d, and %d was on disk",
			volume.ErrDamaged,
			err,
			origin.Token,
			p.settled,
		)
	}

	created, err := p.create(s)
	return volume.Origin{Token: created, Pool: p.info.UUID}, err
}

// recoverLimit also brings a volume of earlier versions, which had the limit in its own quota group, to the
// present form. It changes only what is not as it should be: each change is a transaction, for which a full
// disk has no room.
func (p *Pool) recoverLimit(root *os.File, s volume.Spec) error {
	sub, err := btrfs.Inspect(root)
	if err != nil {
		return err
	}

	if btrfs.LimitOf(p.info, sub) != limit(s.Size) {
		if err := btrfs.Limit(p.volumes, sub, limit(s.Size)); err != nil {
			return err
		}
	}

	if btrfs.OwnLimit(p.info, sub) {
		return btrfs.LiftOwn(p.volumes, sub)
	}

	return nil
}

// List implements volume.Maker.
func (p *Pool) List() ([]string, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	entries, err := os.ReadDir(filepath.Join(p.root, "volumes"))
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, err
}

// Empty implements volume.Maker.
func (p *Pool) Empty(id string) (bool, error) {
	if err := p.enter(); err != nil {
		return false, err
	}
	defer p.leave()

	root, err := btrfs.Open(p.volumes, id)
	if err != nil {
		return false, err
	}
	defer root.Close()

	names, err := root.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}

	return len(names) == 0 && err == nil, err
}

// Destroy implements volume.Maker.
func (p *Pool) Destroy(id string) error {
	if err := p.enterToWrite(); err != nil {
		return err
	}
	defer p.leave()
	if err := p.useRoom(); err != nil {
		return err
	}
	return btrfs.Destroy(p.volumes, id)
}

// Commit implements volume.Maker.
func (p *Pool) Commit() error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()
	if err := btrfs.Sync(p.volumes); err != nil {
		return err
	}
	if p.image == "" {
		return nil
	}
	return p.clearNote()
}

// Grow implements volume.Maker.
func (p *Pool) Grow(s volume.Spec) (nodeStep bool, err error) {
	if err := p.enterToWrite(); err != nil {
		return false, err
	}
	defer p.leave()

	root, err := btrfs.Open(p.volumes, s.ID)
	if err != nil {
		return false, err
	}
	defer root.Close()

	sub, err := btrfs.Inspect(root)
	if err != nil {
		return false, err
	}

	return false, btrfs.Limit(p.volumes, sub, limit(s.Size))
}

// Mount implements volume.Attacher.
func (p *Pool) Mount(s volume.Spec, o mount.Options) (*mount.Tree, error) {
	if err := p.enterToWrite(); err != nil {
		return nil, err
	}
	defer p.leave()

	if err := checkOptions(o.FS); err != nil {
		return nil, err
	}

	root, err := btrfs.Open(p.volumes, s.ID)
	if err != nil {
		return nil, err
	}
	defer root.Close()

	return mount.Clone(root, o)
}

// Device implements volume.Attacher.
func (p *Pool) Device(s volume.Spec) (*os.File, error) {
	return nil, fmt.Errorf("%w: volume %s of backend %s is no device", volume.ErrInvalid, s.ID, Name)
}

// Attached implements volume.Attacher.
func (p *Pool) Attached(string) (bool, error) { return false, nil }

// Release implements volume.Attacher.
func (p *Pool) Release(string) error { return nil }

// Enforce implements volume.Attacher.
func (p *Pool) Enforce(s volume.Spec) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.leave()

	root, err := btrfs.Open(p.volumes, s.ID)
	if err != nil {
		return err
	}
	defer root.Close()

	sub, err := btrfs.Inspect(root)
	if err != nil {
		return err
	}

	return btrfs.Enforce(p.volumes, sub)
}

// GrowAttached implements volume.Attacher.
func (p *Pool) GrowAttached(volume.Spec, *os.File) error { return nil }

// Usage implements volume.Attacher.
func (p *Pool) Usage(s volume.Spec, _ *os.File) (volume.Usage, error) {
	if err := p.enter(); err != nil {
		return volume.Usage{}, err
	}
	defer p.leave()
	used, err := p.used(s.ID)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", s.ID, err)
	}
	used = min(used, s.Size)
	return volume.Usage{Total: s.Size, Used: used, Available: s.Size - used}, nil
}
