// Package btrfspool holds volumes as subvolumes of one btrfs: a file system in a file that is mounted over a
// loop device, or a directory of a disk that is btrfs already. A volume's size is the limit of its quota
// group, so that creating, growing and deleting one takes a moment.
//
// The file has all its blocks, grows ahead of what is written and shrinks behind what is deleted: a full disk
// below costs the writes that do not fit, and nothing else (size.go, reservation.go).
package btrfspool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/volume"
)

// Name of the backend.
const Name = "btrfs"

// roomToRepair is what the disk has to have free before a file system is mounted again that the kernel has
// made read-only because it could not be written.
const roomToRepair = 64 << 20

// reclaimBelow is the percentage of use below which a chunk of data is moved into others.
const reclaimBelow = 30

// Config of a Pool.
type Config struct {
	Dir      string // where the pool's file and its mount point are kept
	Instance string // unique to Dir; marks the loop device as this pool's

	// Most is how large the pool may become in bytes; 0: as large as the disk allows. A pool that is larger
	// already shrinks as far as its content lets it.
	Most int64

	// Reserve is what the disk keeps for others, in bytes.
	Reserve int64
}

// Pool is a pool of volumes. It is open or it is down: down while its file is missing, or cannot be mounted;
// then Check tries again.
//
// The kernel makes a file system read-only for good when it could not write to it, as when the disk beneath
// has failed. Only unmounting it everywhere and mounting it again repairs that, which Check does
// once no volume is in use and the disk has room.
type Pool struct {
	most int64  // Config.Most
	root string // where the pool is mounted, or its directory

	// Both are nil in a directory of a btrfs disk.
	file        *file
	reservation *reservation

	images *image.Images // nil where there are no loop devices
	copies *copies

	// mu is held to read while the pool is used, and to write while it is opened or taken down.
	mu   sync.RWMutex
	fs   *subvolumes // those of the open pool
	down error       // why the pool is not open; nil if it is
}

// Open opens the pool, or creates one if there never was any. A pool that exists but cannot be opened now is
// returned nevertheless: see Err and Check.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	p := &Pool{most: cfg.Most, root: filepath.Join(cfg.Dir, "pool"), copies: newCopies()}
	if err := os.MkdirAll(p.root, 0o700); err != nil {
		return nil, err
	}

	// On a btrfs disk there may be no loop devices, and volumes nevertheless.
	p.images, _ = image.New(cfg.Instance, p.imagePath)
	if !btrfs.On(cfg.Dir) {
		p.file = &file{
			dir:      cfg.Dir,
			instance: cfg.Instance,
			most:     cfg.Most,
			reserve:  cfg.Reserve,
		}
		p.reservation = newReservation(p.file)
	}

	if p.down = p.up(ctx); p.down != nil && (p.file == nil || !p.file.everExisted()) {
		return nil, p.down
	}

	return p, nil
}

// up creates the pool if there never was one, mounts it if it is not mounted, and enables quotas. Every step can be repeated, and writes nothing where all is done: a full disk is no
// reason not to open a pool.
func (p *Pool) up(ctx context.Context) error {
	err := p.tryUp(ctx)
	if err != nil && !errors.Is(err, volume.ErrDamaged) {
		err = fmt.Errorf("%w: pool %s: %w", volume.ErrUnavailable, p.root, err)
	}
	return err
}

func (p *Pool) tryUp(ctx context.Context) error {
	if p.file == nil {
		fs, err := openSubvolumes(p.root)
		p.fs = fs
		return err
	}

	// What is mounted is in use, even if the name of its file is gone.
	if !isMounted(p.root) {
		if err := p.file.create(ctx); err != nil {
			return err
		}
	}

	committed, err := p.file.mount(p.root)
	if err != nil {
		return err
	}

	fs, err := openSubvolumes(p.root)
	if err != nil {
		return err
	}

	fs.committed = committed
	if fs.meter, err = btrfs.NewMeter(fs.dir, fs.info); err != nil {
		return errors.Join(err, fs.Close())
	}

	// Where the kernel cannot, or sysfs is read-only, the disk has chunks back only when they are empty.
	_ = fs.meter.Reclaim(reclaimBelow)

	// Earlier versions kept room in a file of its own, for deletions on a full disk.
	if err := os.Remove(filepath.Join(p.file.dir, "pool.room")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, fs.Close())
	}
	if err := p.file.identify(fs.info.UUID); err != nil {
		return errors.Join(err, fs.Close())
	}

	p.fs = fs
	return nil
}

// takeDown unmounts the file system. What else holds it, in another mount namespace, keeps it as it is.
func (p *Pool) takeDown() error {
	if err := p.fs.Close(); err != nil {
		return err
	}
	p.down = fmt.Errorf("%w: the pool %s is being mounted again", volume.ErrUnavailable, p.file.path())
	if err := unix.Unmount(p.root, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("%w: unmount pool %s: %w", volume.ErrUnavailable, p.root, err)
	}
	return nil
}

// enter keeps the pool open until leave is called, and fails if it is down.
func (p *Pool) enter() (fs *subvolumes, leave func(), err error) {
	p.mu.RLock()
	if p.down != nil {
		defer p.mu.RUnlock()
		return nil, nil, p.down
	}
	return p.fs, p.mu.RUnlock, nil
}

// enterToWrite is enter for what changes the file system or lets a pod in.
func (p *Pool) enterToWrite() (fs *subvolumes, leave func(), err error) {
	fs, leave, err = p.enter()
	if err != nil {
		return nil, nil, err
	}
	if err := p.checkWritable(); err != nil {
		leave()
		return nil, nil, err
	}
	return fs, leave, nil
}

// checkWritable fails if the kernel has made the file system read-only. It was mounted to be written.
func (p *Pool) checkWritable() error {
	var st unix.Statfs_t
	if p.file == nil || unix.Statfs(p.root, &st) != nil || st.Flags&unix.ST_RDONLY == 0 {
		return nil
	}
	return fmt.Errorf("%w: the kernel made the pool %s read-only after it could not write to it, as when"+
		" the disk below fails; it is mounted again when the disk has %d MiB free and no pod on this node"+
		" uses a volume of backend %s any more", volume.ErrUnavailable, p.file.path(), roomToRepair>>20, Name)
}

// Check returns why the pool is down, or cannot be written; see volume.Checker. It opens a pool that is down,
// and with idle set mounts one again that cannot be written.
func (p *Pool) Check(idle bool) error {
	if p.works() {
		return p.fit()
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.down == nil {
		err := p.checkWritable()
		if err == nil || !idle || freeOn(p.file.dir) < roomToRepair {
			return err
		}
		if err := p.takeDown(); err != nil {
			return err
		}
	}

	if p.down = p.up(context.Background()); p.down != nil {
		return p.down
	}

	return p.checkWritable()
}

// works reports whether the pool is open and can be written.
func (p *Pool) works() bool {
	_, leave, err := p.enterToWrite()
	if err == nil {
		leave()
	}
	return err == nil
}

// Err returns why the pool is down, nil if it is open.
func (p *Pool) Err() error {
	_, leave, err := p.enter()
	if err == nil {
		leave()
	}
	return err
}

// String describes the pool for logs.
func (p *Pool) String() string {
	fs, leave, err := p.enter()
	if err != nil {
		return err.Error()
	}
	defer leave()
	if p.file == nil {
		return fmt.Sprintf("directory %s of a btrfs disk, %s", p.root, fs.quota)
	}
	return fmt.Sprintf("btrfs in %s, %s", p.file.path(), fs.quota)
}

// Close closes the pool. With unmount set it is unmounted too; volumes that are mounted elsewhere stay where
// they are.
func (p *Pool) Close(unmount bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()

	var err error
	if p.down == nil {
		err = p.fs.Close()
		p.down = fmt.Errorf("%w: pool %s is closed", volume.ErrUnavailable, p.root)
	}

	if unmount && p.file != nil && isMounted(p.root) {
		if e := unix.Unmount(p.root, unix.UMOUNT_NOFOLLOW); e != nil {
			err = errors.Join(err, fmt.Errorf("unmount pool %s: %w", p.root, e))
		}
	}

	return err
}
