// Package image holds each volume as a file behind a loop device, with ext4 or xfs in it or raw. The file's
// size is the volume's size. It works on every disk, and it is how raw block volumes are made.
package image

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
	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// Name of the backend.
const Name = "image"

// minimum sizes that the mkfs programs accept.
var minimum = map[string]int64{"ext4": 8 << 20, "xfs": 300 << 20, "": 1 << 20}

// mkfsTimeout bounds a mkfs, which takes some 10 ms on an idle disk.
const mkfsTimeout = 2 * time.Minute

// Config of Images.
type Config struct {
	Dir      string // the files are kept in Dir/images
	Instance string // unique to Dir; marks loop devices as these images'
}

// Images is the set of image files. It implements volume.Backend.
type Images struct {
	cfg  Config
	dir  string
	mkfs map[string]string // file system -> program, those that are installed
}

var _ volume.Backend = (*Images)(nil)

// Open makes the directory and looks for the mkfs programs. It fails where there are no loop devices.
func Open(cfg Config) (*Images, error) {
	im := &Images{cfg: cfg, dir: filepath.Join(cfg.Dir, "images"), mkfs: map[string]string{}}
	if err := os.MkdirAll(im.dir, 0o700); err != nil {
		return nil, err
	}
	if err := overwriteInPlace(im.dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return nil, fmt.Errorf("no loop devices: %w", err)
	}

	for _, fs := range []string{"ext4", "xfs"} {
		if path, err := exec.LookPath("mkfs." + fs); err == nil {
			im.mkfs[fs] = path
		}
	}

	return im, nil
}

func (im *Images) path(id string) string { return filepath.Join(im.dir, id+".img") }
func (im *Images) tag(id string) string  { return loop.TagOf(im.cfg.Instance, id) }

// Complete implements volume.Maker. Where the request leaves the file system open, it is xfs, which can
// always grow in use; ext4 for small volumes, where mkfs.xfs is missing, and where xfs does not know a mount
// option.
func (im *Images) Complete(s *volume.Spec, options []string) error {
	if s.Access == volume.Block {
		if s.FSType != "" {
			return fmt.Errorf("%w: a raw block volume has no file system %q", volume.ErrInvalid, s.FSType)
		}

		return nil
	}

	candidates := []string{s.FSType}
	if s.FSType == "" {
		candidates = []string{"ext4", "xfs"}
		if s.Size >= minimum["xfs"] {
			candidates = []string{"xfs", "ext4"}
		}
	}

	var errs []error
	for _, fs := range candidates {
		if err := im.serves(fs, options); err != nil {
			errs = append(errs, err)
			continue
		}

		s.FSType = fs
		s.Size = max(s.Size, minimum[fs])
		return nil
	}

	return fmt.Errorf("%w: backend %s: %w", volume.ErrInvalid, Name, errors.Join(errs...))
}

// serves tells why there can be no volume with the file system and those mount options on this node, if so.
func (im *Images) serves(fs string, options []string) error {
	if minimum[fs] == 0 {
		return fmt.Errorf("no file system %q, but ext4 and xfs", fs)
	}
	if im.mkfs[fs] == "" {
		return fmt.Errorf("mkfs.%s is not installed on this node (Debian package %s)", fs,
			map[string]string{"ext4": "e2fsprogs", "xfs": "xfsprogs"}[fs])
	}
	return mount.CheckOptions(fs, mount.ParseOptions(options))
}

// Create implements volume.Maker.
func (im *Images) Create(s volume.Spec) (volume.Origin, error) {
	if err := im.Destroy(s.ID); err != nil {
		return volume.Origin{}, err
	}

	f, err := os.OpenFile(im.path(s.ID), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return volume.Origin{}, err
	}
	defer f.Close()

	markUnused(f)
	if err := allocate(f, s.Size); err != nil {
		return volume.Origin{}, err
	}

	if s.FSType != "" {
		if err := im.format(s); err != nil {
			return volume.Origin{}, err
		}
	}

	if err := f.Sync(); err != nil {
		return volume.Origin{}, err
	}

	return volume.Origin{}, durable.SyncDir(im.dir)
}

// allocate gives the file its size and, where the disk's file system can, all its blocks: what was promised
// is there when it is written, whatever else has filled the disk meanwhile.
func allocate(f *os.File, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return f.Truncate(size)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: allocate %d bytes for %s: %w", volume.ErrFull, size, f.Name(), err)
	}
	return fmt.Errorf("allocate %d bytes for %s: %w", size, f.Name(), err)
}

func (im *Images) format(s volume.Spec) error {
	ctx, cancel := context.WithTimeout(context.Background(), mkfsTimeout)
	defer cancel()

	// -K: a sparse file has nothing to discard
	args := []string{"-q", "-f", "-K", im.path(s.ID)}
	if s.FSType == "ext4" {
		args = []string{"-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1", im.path(s.ID)}
	}
	if out, err := exec.CommandContext(ctx, im.mkfs[s.FSType], args...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.%s: %w: %s", s.FSType, err, out)
	}

	return nil
}

// Recover implements volume.Maker.
func (im *Images) Recover(s volume.Spec, origin volume.Origin) (volume.Origin, error) {
	st, err := os.Lstat(im.path(s.ID))
	switch {
	case err != nil:
		return origin, fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	case !st.Mode().IsRegular():
		return origin, fmt.Errorf("%w: %s is not a regular file", volume.ErrDamaged, im.path(s.ID))
	case st.Size() < s.Size:
		// a Grow was cut short
		return origin, os.Truncate(im.path(s.ID), s.Size)
	}
	return origin, nil
}

// List implements volume.Maker.
func (im *Images) List() ([]string, error) {
	entries, err := os.ReadDir(im.dir)
	var ids []string
	for _, e := range entries {
		ids = append(ids, strings.TrimSuffix(e.Name(), ".img"))
	}
	return ids, err
}

// Empty implements volume.Maker.
func (im *Images) Empty(id string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Lstat(im.path(id), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: im.path(id), Err: err}
	}
	return st.Blocks == 0 || unused(im.path(id)), nil
}

// Destroy implements volume.Maker. A mount that holds the file's device is seen, whatever namespace it is in.
func (im *Images) Destroy(id string) error {
	if _, err := os.Lstat(im.path(id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := im.Release(id); err != nil {
		return err
	}

	for end := time.Now().Add(linger); ; {
		attached, err := im.Attached(id)
		switch {
		case err != nil:
			return err
		case !attached:
			return os.Remove(im.path(id))
		case time.Now().After(end):
			return fmt.Errorf("%w: %s is still mounted somewhere", volume.ErrInUse, id)
		}

		time.Sleep(5 * time.Millisecond)
	}
}

// linger is how long a released device may stay attached for no reason: whoever looks for a loop device of
// his own opens all of them.
const linger = time.Second

// Commit implements volume.Maker.
func (im *Images) Commit() error { return durable.SyncDir(im.dir) }

// Grow implements volume.Maker.
func (im *Images) Grow(s volume.Spec) (nodeStep bool, err error) {
	f, err := os.OpenFile(im.path(s.ID), os.O_RDWR, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()

	st, err := f.Stat()
	if err != nil {
		return false, err
	}

	if st.Size() < s.Size {
		if err := errors.Join(allocate(f, s.Size), f.Sync()); err != nil {
			return false, err
		}
	}

	return true, nil
}

// Space implements volume.Maker.
func (im *Images) Space(promised volume.Promised) (volume.Space, error) {
	var unwritten int64
	for _, s := range promised.Specs() {
		var st unix.Stat_t

		// being made or deleted
		if unix.Stat(im.path(s.ID), &st) != nil {
			unwritten += s.Size
			continue
		}

		unwritten += max(0, s.Size-st.Blocks*512)
	}

	return volume.Space{Limit: math.MaxInt64 / 2, Unwritten: unwritten}, nil
}

// Check implements volume.Backend. An image that is broken concerns nobody but its own volume.
func (im *Images) Check(bool) error { return nil }

// Mount implements volume.Attacher. One file never has two devices: two file systems on the same bytes would
// destroy each other.
func (im *Images) Mount(s volume.Spec, o mount.Options) (*mount.Tree, error) {
	dev, err := im.attach(s.ID, true)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	if s.FSType == "ext4" {
		growUnmounted(dev, s.Size)
	}
	return mount.New(s.FSType, dev.Name(), o)
}

// Device implements volume.Attacher.
func (im *Images) Device(s volume.Spec) (*os.File, error) { return im.attach(s.ID, false) }

func (im *Images) attach(id string, autoClear bool) (*os.File, error) {
	if dev, err := im.find(id); dev != nil || err != nil {
		return dev, err
	}
	if err := markUsed(im.path(id)); err != nil {
		return nil, err
	}
	return loop.Attach(im.path(id), loop.Options{Tag: im.tag(id), AutoClear: autoClear})
}

// find returns the volume's device, nil when there is none.
func (im *Images) find(id string) (*os.File, error) {
	found, err := loop.Find(im.tag(id))
	if err != nil {
		return nil, err
	}

	var dev *os.File
	for tag, f := range found {
		if tag == im.tag(id) {
			dev = f
			continue
		}

		// an ID that begins with this one
		f.Close()
	}

	return dev, nil
}

// Attached implements volume.Attacher.
func (im *Images) Attached(id string) (bool, error) {
	dev, err := im.find(id)
	if dev != nil {
		dev.Close()
	}
	return dev != nil, err
}

// Release implements volume.Attacher.
func (im *Images) Release(id string) error {
	dev, err := im.find(id)
	if dev == nil || err != nil {
		return err
	}
	defer dev.Close()
	return loop.Detach(dev, im.tag(id))
}

// Enforce implements volume.Attacher: a file or device has the size that it has.
func (im *Images) Enforce(volume.Spec) error { return nil }
