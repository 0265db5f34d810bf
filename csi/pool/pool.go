// Package pool holds volumes as subvolumes of one btrfs: a file system in a sparse file that is mounted over a loop device, or a directory
// of a disk that is btrfs already. A volume's size is the limit of its quota group, so making, growing and deleting one takes a moment.
package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/internal/durable"
)

// Name of the backend.
const Name = "btrfs"

// MinSize is the smallest pool that makes sense: btrfs needs some of it for itself.
const MinSize = 512 << 20

// Config of a Pool.
type Config struct {
	Dir      string // where the pool's file and its mount point are kept
	Instance string // unique to Dir; marks the loop device as this pool's
	Size     int64  // bytes; a larger size than before makes the pool grow, a smaller one changes nothing; 0: 90 % of the free disk when it is made
}

// Pool is an open pool. It implements volume.Backend.
type Pool struct {
	cfg     Config
	image   string // "" in a directory of a btrfs disk
	root    string
	volumes *os.File
	info    btrfs.Info
	quota   btrfs.Quota

	settled uint64 // the last transaction that was on disk before the pool was mounted: what was made up to then is not missing for no reason

	counting sync.Mutex // guards what follows
	held     int64      // see Space
	heldAt   time.Time
}

// Open makes the pool if there is none, mounts it if it is not mounted, grows it if it shall be larger, and enables quotas.
// Every step can be repeated: an Open that was killed is finished by the next one.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	p := &Pool{cfg: cfg, root: filepath.Join(cfg.Dir, "pool")}
	if err := os.MkdirAll(p.root, 0o700); err != nil {
		return nil, err
	}
	if btrfs.On(cfg.Dir) {
		p.settled = math.MaxUint64 // Create commits here
	} else {
		p.image = filepath.Join(cfg.Dir, "pool.img")
		if err := p.format(ctx); err != nil {
			return nil, err
		}
		if err := p.mount(); err != nil {
			return nil, err
		}
	}
	if err := p.open(); err != nil {
		return nil, err
	}
	return p, nil
}

// format makes the pool's file under another name and renames it when it is a whole file system.
func (p *Pool) format(ctx context.Context) error {
	if _, err := os.Stat(p.image); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	size, err := p.sizeOfNew()
	if err != nil {
		return err
	}
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		return fmt.Errorf("make pool: %w (Debian package btrfs-progs)", err)
	}
	temp := p.image + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	// The disk below has its own redundancy, or none: a second copy of the metadata in the same file would help nobody.
	out, err := exec.CommandContext(ctx, mkfs, "--quiet", "--data", "single", "--metadata", "single", "--label", "trivet", temp).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make pool %s: %w: %s", temp, err, out)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(temp, p.image); err != nil {
		return err
	}
	return durable.SyncDir(p.cfg.Dir)
}

func (p *Pool) sizeOfNew() (int64, error) {
	size := p.cfg.Size
	if size == 0 {
		var disk unix.Statfs_t
		if err := unix.Statfs(p.cfg.Dir, &disk); err != nil {
			return 0, &os.PathError{Op: "statfs", Path: p.cfg.Dir, Err: err}
		}
		const align = 1 << 20
		size = int64(disk.Bavail) * disk.Bsize / 10 * 9 / align * align
	}
	if size < MinSize {
		return 0, fmt.Errorf("a pool of %d bytes is too small, it needs %d", size, int64(MinSize))
	}
	return size, nil
}

// mount attaches the pool's file and mounts it, or takes over what a killed process left mounted.
func (p *Pool) mount() error {
	dev, err := p.device()
	if err != nil {
		return err
	}
	defer dev.Close() // the mount keeps the device
	if !mounted(p.root) {
		if err := p.note(); err != nil {
			return err
		}
		tree, err := mount.New("btrfs", dev.Name(), mount.Options{FS: []string{"discard=async"}})
		if err != nil {
			return err
		}
		defer tree.Close()
		if err := tree.AttachTo(p.root); err != nil {
			return err
		}
	}
	return p.grow(dev)
}

func mounted(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 && btrfs.On(path)
}

// device finds the loop device of the pool or attaches one. It detaches itself with the last mount of the pool, wherever that was.
func (p *Pool) device() (*os.File, error) {
	tag := loop.TagOf(p.cfg.Instance, "pool")
	found, err := loop.Find(tag)
	if err != nil {
		return nil, err
	}
	if dev := found[tag]; dev != nil {
		return dev, nil
	}
	return loop.Attach(p.image, loop.Options{Tag: tag, AutoClear: true})
}

// grow brings file, device and file system to the configured size, in this order; each step looks at what is, not at what was done.
func (p *Pool) grow(dev *os.File) error {
	st, err := os.Stat(p.image)
	if err != nil {
		return err
	}
	size := max(st.Size(), p.cfg.Size/4096*4096)
	if size > st.Size() {
		if err := os.Truncate(p.image, size); err != nil {
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
	if err := unix.Statfs(p.root, &fs); err != nil {
		return &os.PathError{Op: "statfs", Path: p.root, Err: err}
	}
	if int64(fs.Blocks)*fs.Bsize >= size {
		return nil
	}
	root, err := os.Open(p.root)
	if err != nil {
		return err
	}
	defer root.Close()
	return btrfs.GrowToDevice(root)
}

// open enables quotas and opens the directory of volumes.
func (p *Pool) open() error {
	root, err := os.Open(p.root)
	if err != nil {
		return err
	}
	defer root.Close()
	if p.info, err = btrfs.Stat(root); err != nil {
		return err
	}
	if p.quota, err = btrfs.EnableQuota(root); err != nil {
		return err
	}
	if p.image != "" {
		if p.settled, err = p.readNote(); errors.Is(err, os.ErrNotExist) {
			p.settled, err = p.info.Generation, nil
		}
		if err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(p.root, "volumes"), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if p.volumes, err = os.Open(filepath.Join(p.root, "volumes")); err != nil {
		return err
	}
	return btrfs.Sync(p.volumes)
}

// Close closes the pool. With unmount set it is unmounted too; volumes that are mounted elsewhere stay where they are.
func (p *Pool) Close(unmount bool) error {
	err := p.volumes.Close()
	if unmount && p.image != "" && mounted(p.root) {
		if e := unix.Unmount(p.root, unix.UMOUNT_NOFOLLOW); e != nil {
			err = errors.Join(err, fmt.Errorf("unmount pool %s: %w", p.root, e))
		}
	}
	return err
}

// String describes the pool for logs.
func (p *Pool) String() string {
	if p.image == "" {
		return fmt.Sprintf("directory %s of a btrfs disk, %s", p.root, p.quota)
	}
	return fmt.Sprintf("btrfs in %s, %s", p.image, p.quota)
}
