// Package loopfile holds each volume as a file behind a loop device, with ext4 or xfs in it or raw. The
// file's size is the volume's size. It works on every disk, and it is how raw block volumes are made.
package loopfile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// Name of the backend.
const Name = "image"

// Config of Files.
type Config struct {
	Dir      string // the files are kept in Dir/images
	Instance string // unique to Dir; marks loop devices as those of these files

	// Held says that there are volumes in the directory of the files: it is not made if it is not there.
	Held bool
}

// Files are the volumes of a directory.
type Files struct {
	*image.Images
	dir  string
	keys keyfile.Dir
}

// What the files are to others. Their sizes cannot be exceeded.
var (
	_ volume.Backend      = (*Files)(nil)
	_ volume.Checker      = (*Files)(nil)
	_ publish.Backend     = (*Files)(nil)
	_ publish.BlockDevice = (*Files)(nil)
	_ publish.Grower      = (*Files)(nil)
	_ volume.Limitable    = (*Files)(nil)
	_ volume.Inspector    = (*Files)(nil)
	_ publish.OwnDevice   = (*Files)(nil)
)

// Open makes the directory and looks for the mkfs programs. It fails where there are no loop devices. A
// directory that has volumes and is not there now is waited for, see Check.
func Open(cfg Config) (*Files, error) {
	files := &Files{dir: filepath.Join(cfg.Dir, "images")}
	if !cfg.Held {
		if err := os.MkdirAll(files.dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := files.prepare(); err != nil {
		return nil, err
	}

	var err error
	files.keys = keyfile.In(cfg.Dir, Name)
	files.Images, err = image.New(cfg.Instance, files.keys, files.path)
	return files, err
}

// prepare has the directory, if it is there, be as it is to be.
func (files *Files) prepare() error {
	if files.Check(false) != nil {
		return nil
	}
	return errors.Join(datadir.Narrow(files.dir), overwriteInPlace(files.dir))
}

// Check returns volume.ErrUnavailable if the directory is not there, as while its disk is not mounted, see
// volume.Checker. An empty one in its place would say that the volumes are gone.
func (files *Files) Check(bool) error {
	_, err := os.Lstat(files.dir)
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: the directory of images: %v; mount its disk, or make an empty one if what was in"+
		" it is lost for good", volume.ErrUnavailable, err)
}

func (files *Files) path(id string) string { return filepath.Join(files.dir, id+".img") }

// Complete fills in the file system, see volume.Backend.
func (files *Files) Complete(s *volume.Spec, options []string) error {
	if err := files.Images.Complete(s, options); err != nil {
		return fmt.Errorf("backend %s: %w", Name, err)
	}
	return nil
}

// CheckLimits refuses none: each file has a device of its own, see volume.Limitable.
func (files *Files) CheckLimits(volume.Spec) error { return nil }

// Create makes a file with all its blocks and formats it, see volume.Backend.
func (files *Files) Create(s volume.Spec) (volume.Origin, error) {
	if err := files.Destroy(s.ID); err != nil {
		return volume.Origin{}, err
	}

	f, err := os.OpenFile(files.path(s.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return volume.Origin{}, err
	}
	defer f.Close()

	image.MarkUnused(f)
	if err := allocate(f, s.Size); err != nil {
		return volume.Origin{}, err
	}

	if err := files.Format(s); err != nil {
		return volume.Origin{}, err
	}

	if err := f.Sync(); err != nil {
		return volume.Origin{}, err
	}

	if err := durable.SyncDir(files.dir); err != nil {
		return volume.Origin{}, err
	}
	return volume.Origin{}, files.MakeKey(s)
}

// Recover finishes a growth that was cut short, see volume.Backend.
func (files *Files) Recover(s volume.Spec, origin volume.Origin) (volume.Origin, error) {
	st, err := os.Lstat(files.path(s.ID))
	switch {
	case errors.Is(err, os.ErrNotExist):
		lack := files.Check(false)
		return origin, cmp.Or(lack, fmt.Errorf("%w: %w", volume.ErrLost, err))
	case err != nil:
		return origin, fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	case !st.Mode().IsRegular():
		return origin, fmt.Errorf("%w: %s is not a regular file", volume.ErrDamaged, files.path(s.ID))
	case st.Size() < s.Size:
		err = os.Truncate(files.path(s.ID), s.Size)
	}
	return origin, errors.Join(err, files.CheckKey(s))
}

// isShort reports whether the file is smaller than the volume.
func (files *Files) isShort(s volume.Spec) bool {
	st, err := os.Lstat(files.path(s.ID))
	return err == nil && st.Size() < s.Size
}

// Inspect lists the directory once, see volume.Inspector. If that is not there nothing is lost.
func (files *Files) Inspect() (volume.Inspection, error) {
	ids, err := files.List()
	if lack := files.Check(false); lack != nil {
		return volume.Inspection{Of: func(volume.Spec) error { return lack }}, nil
	}
	if err != nil {
		return volume.Inspection{}, err
	}

	slices.Sort(ids)
	return volume.Inspection{Part: files.isShort, Of: func(s volume.Spec) error {
		_, there := slices.BinarySearch(ids, s.ID)
		switch {
		case !there:
			return fmt.Errorf("%w: the file %s is not there", volume.ErrLost, files.path(s.ID))
		case s.Encryption != "":
			return files.keys.Look(s.ID)
		}
		return nil
	}}, nil
}

// List returns the IDs of all volumes.
func (files *Files) List() ([]string, error) {
	entries, err := os.ReadDir(files.dir)
	var ids []string
	for _, e := range entries {
		ids = append(ids, strings.TrimSuffix(e.Name(), ".img"))
	}
	return ids, err
}

// Empty reports whether nobody can have written to a volume, see volume.Inventory.
func (files *Files) Empty(id string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(files.path(id), &st); err != nil {
		if lack := files.Check(false); lack != nil {
			return false, lack
		}
		return false, &os.PathError{Op: "stat", Path: files.path(id), Err: err}
	}
	return st.Blocks == 0 || image.IsUnused(files.path(id)), nil
}

// Destroy deletes the file of a volume, the key file first. One whose device is in use is ErrInUse, whatever
// mount namespace it is mounted in.
func (files *Files) Destroy(id string) error {
	_, err := os.Lstat(files.path(id))
	if lack := files.Check(false); lack != nil {
		// Its disk may have the file.
		return fmt.Errorf("volume %s: %w", id, lack)
	}
	if errors.Is(err, os.ErrNotExist) {
		return files.keys.Erase(id)
	}
	if err := files.Free(id); err != nil {
		return err
	}
	if err := files.keys.Erase(id); err != nil {
		return err
	}
	return os.Remove(files.path(id))
}

// Commit makes deletions survive a power loss, see volume.Backend.
func (files *Files) Commit() error {
	if err := files.Check(false); err != nil {
		return err
	}
	return durable.SyncDir(files.dir)
}

// Grow makes the file larger. Where it is in use, GrowStaged has to follow.
func (files *Files) Grow(s volume.Spec) error {
	f, err := os.OpenFile(files.path(s.ID), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() >= s.Size {
		return err
	}
	return errors.Join(allocate(f, s.Size), f.Sync())
}

// Capacity has no limit but that of the disk, see space.Backend.
func (files *Files) Capacity(promised space.Promised) (space.Capacity, error) {
	var unwritten int64
	for _, p := range promised.Each() {
		var st unix.Stat_t
		if unix.Stat(files.path(p.ID), &st) != nil {
			// It is being made or deleted.
			unwritten += p.Bytes
			continue
		}
		unwritten += max(0, p.Bytes-st.Blocks*512)
	}
	return space.Capacity{Limit: math.MaxInt64 / 2, Unwritten: unwritten}, nil
}
