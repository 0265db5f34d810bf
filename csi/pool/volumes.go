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
	"github.com/trivet-node/trivet/internal/durable"
)

var _ volume.Backend = (*Pool)(nil)

// Complete implements volume.Maker.
func (p *Pool) Complete(s *volume.Spec) error {
	switch {
	case s.Access == volume.Block:
		return fmt.Errorf("%w: backend %s has no raw block volumes", volume.ErrInvalid, Name)
	case s.FSType != "" && s.FSType != "btrfs":
		return fmt.Errorf("%w: backend %s has no file system %q", volume.ErrInvalid, Name, s.FSType)
	}
	s.FSType = "btrfs"
	return nil
}

// limit is what a volume's quota group may hold. The group is also charged for the volume's own metadata; the addition keeps that from
// coming out of the bytes that were asked for, and stays below one percent.
func limit(size int64) int64 { return size + size/128 + 32<<10 }

// Create implements volume.Maker. The token is the transaction that the volume was made in.
func (p *Pool) Create(s volume.Spec) (uint64, error) {
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
		err = btrfs.Commit(root) // nobody could tell after a power loss whether it had ever been on disk
	}
	return sub.Created, err
}

// noCOW lets files that are made below overwrite their blocks in place (chattr +C): for databases, at the price of checksums.
func noCOW(root *os.File) error {
	const fsNoCOW = 0x00800000 // FS_NOCOW_FL
	flags, err := unix.IoctlGetUint32(int(root.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(root.Fd()), unix.FS_IOC_SETFLAGS, int(flags|fsNoCOW))
	}
	if err != nil {
		return fmt.Errorf("switch off copy-on-write of %s: %w", root.Name(), err)
	}
	return nil
}

// Recover implements volume.Maker. An acknowledged volume may be missing after a power loss: its record is synced at once, the transaction
// that made it up to half a minute later. Nothing in it can have been synced by its user then, for that would have committed the transaction:
// an empty volume is what a disk would show, too. Missing though its transaction was committed, it is lost.
func (p *Pool) Recover(s volume.Spec, token uint64) error {
	root, err := btrfs.Open(p.volumes, s.ID)
	switch {
	case err == nil:
		defer root.Close()
		return p.recoverLimit(root, s)
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	case token <= p.settled:
		return fmt.Errorf("%w: %w; it was made in transaction %d, and %d was on disk", volume.ErrDamaged, err, token, p.settled)
	}
	_, err = p.Create(s)
	return err
}

// recoverLimit also brings a volume of earlier versions, which had the limit in its own quota group, to the present form.
func (p *Pool) recoverLimit(root *os.File, s volume.Spec) error {
	sub, err := btrfs.Inspect(root)
	if err == nil {
		err = btrfs.Limit(p.volumes, sub, limit(s.Size))
	}
	if err == nil {
		err = btrfs.LiftOwn(p.volumes, sub)
	}
	return err
}

// List implements volume.Maker.
func (p *Pool) List() ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(p.root, "volumes"))
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, err
}

// Empty implements volume.Maker.
func (p *Pool) Empty(id string) (bool, error) {
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
func (p *Pool) Destroy(id string) error { return btrfs.Destroy(p.volumes, id) }

// Commit implements volume.Maker.
func (p *Pool) Commit() error {
	if err := btrfs.Sync(p.volumes); err != nil {
		return err
	}
	return durable.Remove(p.notePath())
}

// Grow implements volume.Maker.
func (p *Pool) Grow(s volume.Spec) (nodeStep bool, err error) {
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
	if len(o.FS) > 0 {
		return nil, fmt.Errorf("%w: backend %s knows no mount option %q", volume.ErrInvalid, Name, o.FS)
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
	used, err := p.used(s.ID)
	if err != nil {
		return volume.Usage{}, fmt.Errorf("usage of volume %s: %w", s.ID, err)
	}
	used = min(used, s.Size)
	return volume.Usage{Total: s.Size, Used: used, Available: s.Size - used}, nil
}
