package btrfspool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/mount"
)

// minSize is the smallest pool that makes sense: btrfs needs some of it for itself.
const minSize = 512 << 20

// file is the sparse file that holds a pool, and what is kept beside it.
type file struct {
	dir      string
	instance string
	size     int64 // as configured
}

func (f *file) path() string { return filepath.Join(f.dir, "pool.img") }

// idPath is where the UUID of the pool is kept, so that a file that is missing is not taken for one that
// never existed.
func (f *file) idPath() string { return filepath.Join(f.dir, "pool.id") }

func (f *file) baseline() baseline { return baseline{dir: f.dir} }

// everExisted reports whether a pool was created here at any time.
func (f *file) everExisted() bool {
	_, pool := os.Lstat(f.path())
	_, id := os.Lstat(f.idPath())
	return pool == nil || id == nil
}

// create makes the file if there never was one: under another name, and it is renamed when it is a whole file
// system.
func (f *file) create(ctx context.Context) error {
	if _, err := os.Stat(f.path()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := f.checkNeverExisted(); err != nil {
		return err
	}

	size, err := f.initialSize()
	if err != nil {
		return err
	}

	temp := f.path() + ".new"
	if err := format(ctx, temp, size); err != nil {
		return err
	}
	if err := os.Rename(temp, f.path()); err != nil {
		return err
	}

	return durable.SyncDir(f.dir)
}

// checkNeverExisted returns ErrDamaged if a pool was kept here whose file is not there: its volumes are
// damaged, and none is created in its place.
func (f *file) checkNeverExisted() error {
	id, err := os.ReadFile(f.idPath())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: the file %s of pool %s is missing; bring it back, and its volumes are there"+
		" again without a restart; if it is lost for good, remove %s, and a new, empty pool is made",
		volume.ErrDamaged, f.path(), strings.TrimSpace(string(id)), f.idPath())
}

func (f *file) initialSize() (int64, error) {
	const align = 1 << 20
	size := f.size
	if size == 0 {
		size = freeOn(f.dir) / 10 * 9 / align * align
	}
	if size < minSize {
		return 0, fmt.Errorf("a pool of %d bytes is too small, it needs %d", size, int64(minSize))
	}
	return size, nil
}

// format makes a file system in a new file and syncs it.
func format(ctx context.Context, path string, size int64) error {
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		return fmt.Errorf("make pool: %w (Debian package btrfs-progs)", err)
	}

	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	if err := f.Truncate(size); err != nil {
		return err
	}

	// The disk beneath has its own redundancy, or none: a second copy of the metadata in the same file would
	// help nobody.
	args := []string{"--quiet", "--data", "single", "--metadata", "single", "--label", "trivet", path}
	out, err := exec.CommandContext(ctx, mkfs, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make pool %s: %w: %s", path, err, out)
	}

	return f.Sync()
}

// mount attaches the file and mounts it on root, or takes over what a killed process left mounted. It returns
// the number of the last transaction that was on disk before, see baseline.
func (f *file) mount(root string) (committed uint64, err error) {
	dev, err := f.device()
	if err != nil {
		return 0, err
	}

	// The mount keeps the device.
	defer dev.Close()

	if isMounted(root) {
		committed, err = f.baseline().ofMounted(root)
	} else {
		committed, err = f.baseline().beforeMount(f.path())
	}

	if err != nil {
		return 0, err
	}

	if !isMounted(root) {
		tree, err := target.New("btrfs", dev.Name(), target.Options{FS: []string{"discard=async"}})
		if err != nil {
			return 0, err
		}
		defer tree.Close()

		if err := tree.AttachTo(root); err != nil {
			return 0, err
		}
	}

	return committed, f.grow(dev, root)
}

func isMounted(path string) bool {
	on, err := mount.Mounted(path)
	return on && err == nil && btrfs.On(path)
}

// device finds the loop device of the pool or attaches one. The kernel detaches it with the last mount of the
// pool, wherever that is.
func (f *file) device() (*os.File, error) {
	tag := loop.TagOf(f.instance, "pool")
	found, err := loop.Find(tag)
	if err != nil {
		return nil, err
	}
	if dev := found[tag]; dev != nil {
		return dev, nil
	}
	return loop.Attach(f.path(), loop.Options{Tag: tag, AutoClear: true})
}

// grow brings file, device and file system to the configured size, in this order. Each step looks at what is,
// not at what was done.
func (f *file) grow(dev *os.File, root string) error {
	st, err := os.Stat(f.path())
	if errors.Is(err, os.ErrNotExist) {
		// Removed while it is mounted: what is mounted can be used, and its data be saved.
		return nil
	}

	if err != nil {
		return err
	}

	size := max(st.Size(), f.size/4096*4096)
	if size > st.Size() {
		if err := os.Truncate(f.path(), size); err != nil {
			return err
		}
	}

	have, err := loop.Size(dev)
	if err != nil {
		return err
	}

	if have < size {
		if err := loop.Resize(dev); err != nil {
			return err
		}
	}

	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: root, Err: err}
	}
	if int64(fs.Blocks)*fs.Bsize >= size {
		return nil
	}

	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	defer dir.Close()

	return btrfs.GrowToDevice(dir)
}

// identify records the UUID of the pool that is kept here. On a full disk the next start does it.
func (f *file) identify(uuid string) error {
	known, err := os.ReadFile(f.idPath())
	if err == nil && strings.TrimSpace(string(known)) == uuid {
		return nil
	}
	err = durable.WriteFile(f.idPath(), []byte(uuid+"\n"), 0o600)
	if errors.Is(err, unix.ENOSPC) {
		return nil
	}
	return err
}

// freeOn returns what the file system of a directory has free for unprivileged users, in bytes; 0 if that
// is not known.
func freeOn(dir string) int64 {
	var disk unix.Statfs_t
	if unix.Statfs(dir, &disk) != nil {
		return 0
	}
	return int64(disk.Bavail) * disk.Bsize
}
