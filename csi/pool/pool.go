// Package pool holds volumes as subvolumes of one btrfs: a file system in a sparse file that is mounted over
// a loop device, or a directory of a disk that is btrfs already. A volume's size is the limit of its quota
// group, so making, growing and deleting one takes a moment.
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
	// bytes; a larger size than before makes the pool grow, a smaller one changes nothing; 0: 90 % of the
	// free disk when it is made
	Size int64
}

// Pool is a pool of volumes. It implements volume.Backend.
type Pool struct {
	cfg   Config
	image string // "" in a directory of a btrfs disk
	root  string

	// mu is held to read while the pool is used, and to write while it is taken down or brought up; it guards
	// what follows.
	mu      sync.RWMutex
	down    error // why it is not open; nil: it is
	volumes *os.File
	info    btrfs.Info
	quota   btrfs.Quota

	// settled is the last transaction that was on disk before the pool was mounted: what was made up to then
	// is not missing for no reason.
	settled uint64

	counting sync.Mutex // guards what follows
	held     int64      // see Space
	heldAt   time.Time
	deleted  time.Time // when a volume was deleted on a full disk the last time
}

// Open opens the pool, or makes one if there never was any. A pool that exists but cannot be opened now is
// returned nevertheless: Check tries again.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	p := &Pool{cfg: cfg, root: filepath.Join(cfg.Dir, "pool")}
	if err := os.MkdirAll(p.root, 0o700); err != nil {
		return nil, err
	}

	if btrfs.On(cfg.Dir) {
		// Create commits here
		p.settled = math.MaxUint64
	} else {
		p.image = filepath.Join(cfg.Dir, "pool.img")
	}

	if p.down = p.bringUp(ctx); p.down != nil && (p.image == "" || !p.exists()) {
		return nil, p.down
	}

	return p, nil
}

// format makes the pool's file under another name and renames it when it is a whole file system.
func (p *Pool) format(ctx context.Context) error {
	if _, err := os.Stat(p.image); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := p.missing(); err != nil {
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

	// The disk below has its own redundancy, or none: a second copy of the metadata in the same file would
	// help nobody.
	out, err := exec.CommandContext(
		ctx,
		mkfs,
		"--quiet",
		"--data",
		"single",
		"--metadata",
		"single",
		"--label",
		"trivet",
		temp,
	).CombinedOutput()
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

	// the mount keeps the device
	defer dev.Close()

	if mounted(p.root) {
		err = p.readNote()
	} else {
		err = p.note()
	}

	if err != nil {
		return err
	}

	if !mounted(p.root) {
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

// device finds the loop device of the pool or attaches one. It detaches itself with the last mount of the
// pool, wherever that was.
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

// grow brings file, device and file system to the configured size, in this order; each step looks at what is,
// not at what was done.
func (p *Pool) grow(dev *os.File) error {
	st, err := os.Stat(p.image)
	if errors.Is(err, os.ErrNotExist) {
		// removed while it is mounted: what is mounted can be used, and be saved
		return nil
	}

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

	dir := filepath.Join(p.root, "volumes")
	fresh := os.Mkdir(dir, 0o700)
	if fresh != nil && !errors.Is(fresh, os.ErrExist) {
		return fresh
	}
	if p.volumes, err = os.Open(dir); err != nil {
		return err
	}
	if fresh == nil {
		err = btrfs.Sync(p.volumes)
	}

	return err
}

// String describes the pool for logs.
func (p *Pool) String() string {
	if err := p.enter(); err != nil {
		return err.Error()
	}
	defer p.leave()
	if p.image == "" {
		return fmt.Sprintf("directory %s of a btrfs disk, %s", p.root, p.quota)
	}
	return fmt.Sprintf("btrfs in %s, %s", p.image, p.quota)
}
