// Package loopfile holds each volume as a file behind a loop device, with ext4 or xfs in it or raw. The
// file's size is the volume's size. It works on every disk, and it is how raw block volumes are made.
package loopfile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/retry"
)

// Name of the backend.
const Name = "image"

// Config of Files.
type Config struct {
	Dir      string // the files are kept in Dir/images
	Instance string // unique to Dir; marks loop devices as those of these files
}

// Files are the volumes of a directory.
type Files struct {
	dir      string
	instance string
	mkfs     map[string]string // by file system: path of the program; those that are installed
}

// What the files are to others. A file cannot fail but by itself, and its size cannot be exceeded.
var (
	_ volume.Backend      = (*Files)(nil)
	_ publish.Backend     = (*Files)(nil)
	_ publish.BlockDevice = (*Files)(nil)
	_ publish.Grower      = (*Files)(nil)
)

// Open makes the directory and looks for the mkfs programs. It fails where there are no loop devices.
func Open(cfg Config) (*Files, error) {
	files := &Files{
		dir:      filepath.Join(cfg.Dir, "images"),
		instance: cfg.Instance,
		mkfs:     map[string]string{},
	}
	if err := os.MkdirAll(files.dir, 0o700); err != nil {
		return nil, err
	}
	if err := overwriteInPlace(files.dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return nil, fmt.Errorf("no loop devices: %w", err)
	}

	for fs := range fileSystems {
		if path, err := exec.LookPath("mkfs." + fs); err == nil {
			files.mkfs[fs] = path
		}
	}

	return files, nil
}

func (files *Files) path(id string) string { return filepath.Join(files.dir, id+".img") }
func (files *Files) tag(id string) string  { return loop.TagOf(files.instance, id) }

// Complete fills in the file system, see volume.Backend. Where the request leaves it open, it is xfs, which
// can always grow in use; ext4 for small volumes, where mkfs.xfs is missing, and where xfs does not know a
// mount option.
func (files *Files) Complete(s *volume.Spec, options []string) error {
	if s.Access == volume.Block {
		if s.FSType != "" {
			return fmt.Errorf("%w: a raw block volume has no file system %q", volume.ErrInvalid, s.FSType)
		}

		return nil
	}

	var errs []error
	for _, fs := range candidates(s.FSType, s.Size) {
		if err := files.check(fs, options); err != nil {
			errs = append(errs, err)
			continue
		}

		s.FSType = fs
		s.Size = max(s.Size, fileSystems[fs].smallest)
		return nil
	}

	return fmt.Errorf("%w: backend %s: %w", volume.ErrInvalid, Name, errors.Join(errs...))
}

// check returns why there can be no volume with the file system and those mount options on this node.
func (files *Files) check(fs string, options []string) error {
	kind, ok := fileSystems[fs]
	if !ok {
		return fmt.Errorf("no file system %q, but ext4 and xfs", fs)
	}
	if files.mkfs[fs] == "" {
		return fmt.Errorf("mkfs.%s is not installed on this node (Debian package %s)", fs, kind.debianPackage)
	}
	return target.CheckOptions(fs, target.ParseOptions(options))
}

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

	markUnused(f)
	if err := allocate(f, s.Size); err != nil {
		return volume.Origin{}, err
	}

	if s.FSType != "" {
		if err := format(files.mkfs[s.FSType], s.FSType, f.Name()); err != nil {
			return volume.Origin{}, err
		}
	}

	if err := f.Sync(); err != nil {
		return volume.Origin{}, err
	}

	return volume.Origin{}, durable.SyncDir(files.dir)
}

// Recover finishes a growth that was cut short, see volume.Backend.
func (files *Files) Recover(s volume.Spec, origin volume.Origin) (volume.Origin, error) {
	st, err := os.Lstat(files.path(s.ID))
	switch {
	case err != nil:
		return origin, fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	case !st.Mode().IsRegular():
		return origin, fmt.Errorf("%w: %s is not a regular file", volume.ErrDamaged, files.path(s.ID))
	case st.Size() < s.Size:
		return origin, os.Truncate(files.path(s.ID), s.Size)
	}
	return origin, nil
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
		return false, &os.PathError{Op: "stat", Path: files.path(id), Err: err}
	}
	return st.Blocks == 0 || isUnused(files.path(id)), nil
}

// A released device may stay attached for a moment without being in use: programs that look for a loop device
// open all of them.
const (
	detachTimeout = time.Second
	detachPoll    = 5 * time.Millisecond
)

// Destroy deletes the file of a volume. One whose device is in use is ErrInUse, whatever mount namespace it
// is mounted in.
func (files *Files) Destroy(id string) error {
	if _, err := os.Lstat(files.path(id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := files.Detach(id); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(context.Background(), detachTimeout)
	defer cancel()

	for range retry.Every(ctx, detachPoll) {
		attached, err := files.Attached(id)
		if err != nil {
			return err
		}
		if !attached {
			return os.Remove(files.path(id))
		}
	}

	return fmt.Errorf("%w: %s is still mounted somewhere", volume.ErrInUse, id)
}

// Commit makes deletions survive a power loss, see volume.Backend.
func (files *Files) Commit() error { return durable.SyncDir(files.dir) }

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
