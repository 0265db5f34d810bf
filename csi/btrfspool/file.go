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
	"github.com/trivet-node/trivet/internal/loopcontrol"
	"github.com/trivet-node/trivet/internal/mount"
)

// file is the file that holds a pool, and what is kept beside it.
type file struct {
	dir      string
	instance string
	most     int64 // bytes that the pool may have; 0: as many as the disk allows
	reserve  int64 // bytes of the disk that volumes never get

	// mounted is the file that the mounted pool is in, whatever has its name by now.
	mounted loop.Backing
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

// initialSize is that of a pool without content.
func (f *file) initialSize() (int64, error) {
	m := measure{disk: f.disk(), most: f.most}
	size := max(minSize, m.headroom()+minSize/2) / sizeStep * sizeStep
	if f.most > 0 && f.most < size {
		size = f.most / sizeStep * sizeStep
	}

	switch {
	case size < minSize:
		return 0, fmt.Errorf("a pool of %d bytes is too small, it needs %d", f.most, int64(minSize))
	case size > m.disk:
		return 0, fmt.Errorf("%w: a new pool needs %d bytes, the disk below has %d",
			volume.ErrFull, size, m.disk)
	}

	return size, nil
}

// format makes a file system in a new file that has all its blocks, and syncs it.
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

	if err := allocate(f, 0, size); err != nil {
		return errors.Join(err, os.Remove(path))
	}

	// The disk beneath has its own redundancy, or none: a second copy of the metadata in the same file would
	// help nobody. Discarding would give the blocks back to the disk.
	args := []string{
		"--quiet", "--nodiscard", "--data", "single", "--metadata", "single", "--label", "trivet", path,
	}
	out, err := exec.CommandContext(ctx, mkfs, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make pool %s: %w: %s", path, err, out)
	}

	return f.Sync()
}

// allocate gives a file all its blocks between two offsets. What is there stays as it is.
func allocate(f *os.File, from, to int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, from, to-from)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the file system of %s cannot reserve blocks: %w", f.Name(), err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: allocate %d bytes for %s: %w", volume.ErrFull, to-from, f.Name(), err)
	case err != nil:
		return fmt.Errorf("allocate %d bytes for %s: %w", to-from, f.Name(), err)
	}
	return nil
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

	options := target.Options{FS: []string{"nodiscard"}}
	if isMounted(root) {
		err = takeOver(root, options)
	} else {
		err = f.attachTo(root, dev, options)
	}
	if err != nil {
		return 0, err
	}

	return committed, f.settleMounted(dev, root)
}

// takeOver gives what is mounted its options. What the kernel has made read-only stays as it is, which
// checkWritable says.
func takeOver(root string, options target.Options) error {
	err := target.Reconfigure(root, options)
	if isReadOnly(root) {
		return nil
	}
	return err
}

func (f *file) attachTo(root string, dev *os.File, options target.Options) error {
	tree, err := target.New("btrfs", dev.Name(), options)
	if err != nil {
		return err
	}
	defer tree.Close()
	return tree.AttachTo(root)
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

	// What was killed, and unmounted since, has left its device as it was told to be.
	if err := loopcontrol.Mend(); err != nil {
		return nil, err
	}

	return loop.Attach(f.path(), loop.Options{Tag: tag, AutoClear: true})
}

// settleMounted brings device and file system to the size of the file, which an interrupted change of the
// size may have left different.
func (f *file) settleMounted(dev *os.File, root string) error {
	// Where sysfs cannot be written, fstrim(8) on the pool makes holes in its file, which are filled again.
	_ = loop.KeepBlocks(dev)

	var err error
	if f.mounted, err = loop.BackingOf(dev); err != nil {
		return err
	}

	size, _, err := f.stat()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errAnother) {
		// Removed while it is mounted: what is mounted can be used, and its data be saved.
		return nil
	}
	if err != nil {
		return err
	}

	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	defer dir.Close()

	return f.settle(dev, dir, size)
}

// settle brings device and file system to a size that the file has. Each step looks at what is, not at what
// was done.
func (f *file) settle(dev, dir *os.File, size int64) error {
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
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: dir.Name(), Err: err}
	}
	if int64(fs.Blocks)*fs.Bsize >= size/4096*4096 || fs.Flags&unix.ST_RDONLY != 0 {
		return nil
	}

	return btrfs.Resize(dir, size/4096*4096)
}

// extend makes the file larger, or leaves it as it is, and returns its size.
func (f *file) extend(bytes int64) (int64, error) {
	file, st, err := f.open()
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if err := allocate(file, st.Size, st.Size+bytes); err != nil {
		return 0, errors.Join(err, file.Truncate(st.Size))
	}
	return st.Size + bytes, nil
}

// cut makes file and device smaller; the file system already is.
func (f *file) cut(dev *os.File, size int64) error {
	file, _, err := f.open()
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return err
	}
	return loop.Resize(dev)
}

// fill gives the file the blocks that it lacks.
func (f *file) fill() error {
	file, st, err := f.open()
	if err != nil {
		return err
	}
	defer file.Close()
	return errors.Join(allocate(file, 0, st.Size), file.Sync())
}

// open opens the file that is mounted. Another one of its name is left alone.
func (f *file) open() (*os.File, unix.Stat_t, error) {
	var st unix.Stat_t
	file, err := os.OpenFile(f.path(), os.O_RDWR, 0)
	if err != nil {
		return nil, st, err
	}

	err = unix.Fstat(int(file.Fd()), &st)
	if err == nil {
		err = f.checkMounted(st)
	}

	if err != nil {
		file.Close()
		return nil, st, err
	}

	return file, st, nil
}

// errAnother is a file that somebody has put in the place of the pool's.
var errAnother = errors.New("what is mounted is another file")

func (f *file) checkMounted(st unix.Stat_t) error {
	if f.mounted == (loop.Backing{Device: st.Dev, Inode: st.Ino}) {
		return nil
	}
	return fmt.Errorf("pool %s: %w than the one that has this name now, and stays as it is; move that one"+
		" back", f.path(), errAnother)
}

// stat returns the size of the file that is mounted and how many bytes of it have no blocks.
func (f *file) stat() (size, holes int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(f.path(), &st); err != nil {
		return 0, 0, &os.PathError{Op: "stat", Path: f.path(), Err: err}
	}
	return st.Size, max(0, st.Size-st.Blocks*512), f.checkMounted(st)
}

// checkDense says what a person can do about a file that lacks blocks.
func (f *file) checkDense() error {
	_, holes, err := f.stat()
	if err != nil || holes == 0 {
		return err
	}
	return fmt.Errorf("the file %s of the pool lacks blocks, as those of earlier versions did, and the"+
		" disk has no room for them; if it runs full, the kernel may make all volumes of the pool"+
		" read-only; make room on it, and the blocks are reserved", f.path())
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

// disk returns how many bytes the disk below still has for the pool.
func (f *file) disk() int64 { return max(0, freeOn(f.dir)-f.reserve) }
