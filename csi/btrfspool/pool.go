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
	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/loopcontrol"
	"github.com/trivet-node/trivet/internal/retry"
)

// Name of the backend.
const Name = "btrfs"

// roomToRepair is what the disk has to have free before a file system is mounted again that the kernel has
// made read-only because it could not be written.
const roomToRepair = 64 << 20

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

// Pool is a pool of volumes.
type Pool struct {
	*mountpoint
	*images
	*inspector
	most   int64 // Config.Most
	shares *shares
}

// Open opens the pool, or creates one if there never was any. A pool that exists but cannot be opened now is
// returned nevertheless: see Err and Check.
func Open(ctx context.Context, cfg Config) (*Pool, error) {
	m := &mountpoint{root: filepath.Join(cfg.Dir, "pool")}
	if err := errors.Join(os.MkdirAll(m.root, 0o700), datadir.Narrow(m.root)); err != nil {
		return nil, err
	}

	keys := keyfile.In(cfg.Dir, Name)
	p := &Pool{
		mountpoint: m,
		images:     newImages(cfg.Instance, m.root, keys),
		inspector:  &inspector{mountpoint: m, keys: keys},
		most:       cfg.Most,
	}
	if !btrfs.On(cfg.Dir) {
		m.file = &file{
			dir:      cfg.Dir,
			instance: cfg.Instance,
			most:     cfg.Most,
			reserve:  cfg.Reserve,
		}
		p.images.reserved = true
	}

	p.shares = newShares(m.file)

	if m.down = m.up(ctx); m.down != nil && (m.file == nil || !m.file.everExisted()) {
		return nil, m.down
	}

	return p, nil
}

// Keep keeps the pool as large as it should be until ctx ends, see volume.Keeper. Why it is not is said by
// Check.
func (p *Pool) Keep(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { (&counter{p.mountpoint, p.shares}).run(ctx) })
	group.Go(func() { p.sweep(ctx) })

	for p.file != nil && ctx.Err() == nil {
		if p.isDue() {
			_ = p.fit()
		}
		_ = retry.Sleep(ctx, p.shares.reservation.pause())
	}
}

func (p *Pool) isDue() bool {
	fs, leave, err := p.enter()
	if err != nil {
		return false
	}
	defer leave()
	return p.shares.reservation.isDue(fs)
}

func (p *Pool) fit() error {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return err
	}
	defer leave()
	if p.file == nil {
		return nil
	}

	err = p.shares.reservation.fit(fs)
	if errors.Is(err, unix.EROFS) {
		return p.checkWritable()
	}
	return err
}

// Check returns why the pool is down, cannot be written, is not as large as it should be, or limits volumes
// apart from each other; see volume.Checker. It opens a pool that is down, and with idle set mounts one again
// that cannot be written.
func (p *Pool) Check(idle bool) error {
	if p.works() {
		return errors.Join(p.keepTogether(), p.fit())
	}
	return p.repair(idle)
}

// keepTogether tries again what may have failed when the pool was opened.
func (m *mountpoint) keepTogether() error {
	fs, leave, err := m.enterToWrite()
	if err != nil {
		return err
	}
	defer leave()
	if m.file == nil {
		return nil
	}
	return btrfs.KeepTogether(fs.dir, fs.info)
}

// mountpoint is where the file system of a pool is mounted, open or down: down while its file is missing, or
// cannot be mounted; then repair tries again.
//
// The kernel makes a file system read-only for good when it could not write to it, as when the disk beneath
// has failed. Only unmounting it everywhere and mounting it again repairs that, which is done once no volume
// is in use and the disk has room.
type mountpoint struct {
	root string
	file *file // nil in a directory of a btrfs disk

	// mu is held to read while the pool is used, and to write while it is opened or taken down.
	mu   sync.RWMutex
	fs   *subvolumes // those of the open pool
	down error       // why the pool is not open; nil if it is
}

// up creates the pool if there never was one, mounts it if it is not mounted, and enables quotas. Every step
// can be repeated, and writes nothing where all is done: a full disk is no reason not to open a pool.
func (m *mountpoint) up(ctx context.Context) error {
	err := m.tryUp(ctx)
	if err != nil && !errors.Is(err, volume.ErrDamaged) {
		err = fmt.Errorf("%w: pool %s: %w", volume.ErrUnavailable, m.root, err)
	}
	return err
}

func (m *mountpoint) tryUp(ctx context.Context) error {
	if m.file == nil {
		fs, err := openSubvolumes(m.root)
		m.fs = fs
		return err
	}

	// What is mounted is in use, even if the name of its file is gone.
	if !isMounted(m.root) {
		if err := m.file.create(ctx); err != nil {
			return err
		}
	}

	committed, err := m.file.mount(m.root)
	if err != nil {
		return err
	}

	fs, err := openSubvolumes(m.root)
	if err != nil {
		return err
	}

	fs.committed = committed
	if fs.meter, err = btrfs.NewMeter(fs.dir, fs.info); err != nil {
		return errors.Join(err, fs.Close())
	}

	// Where there is no room for a larger chunk, or another quota group, the pool is used as it is. Of groups
	// Check says why.
	_ = fs.meter.EnlargeMetadata()
	_ = btrfs.KeepTogether(fs.dir, fs.info)

	// Earlier versions kept room in a file of its own, for deletions on a full disk.
	err = os.Remove(filepath.Join(m.file.dir, "pool.room"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errors.Join(err, fs.Close())
	}

	if err := m.file.identify(fs.info.UUID); err != nil {
		return errors.Join(err, fs.Close())
	}

	m.fs = fs
	return nil
}

// takeDown unmounts the file system. What else holds it, in another mount namespace, keeps it as it is.
func (m *mountpoint) takeDown() error {
	if err := m.fs.Close(); err != nil {
		return err
	}
	m.down = fmt.Errorf("%w: the pool %s is being mounted again", volume.ErrUnavailable, m.file.path())
	if err := unix.Unmount(m.root, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("%w: unmount pool %s: %w", volume.ErrUnavailable, m.root, err)
	}
	return loopcontrol.Mend()
}

// enter keeps the pool open until leave is called, and fails if it is down.
func (m *mountpoint) enter() (fs *subvolumes, leave func(), err error) {
	m.mu.RLock()
	if m.down != nil {
		defer m.mu.RUnlock()
		return nil, nil, m.down
	}
	return m.fs, m.mu.RUnlock, nil
}

// enterToWrite is enter for what changes the file system or lets a pod in.
func (m *mountpoint) enterToWrite() (fs *subvolumes, leave func(), err error) {
	fs, leave, err = m.enter()
	if err != nil {
		return nil, nil, err
	}
	if err := m.checkWritable(); err != nil {
		leave()
		return nil, nil, err
	}
	return fs, leave, nil
}

// checkWritable fails if the kernel has made the file system read-only. It was mounted to be written.
func (m *mountpoint) checkWritable() error {
	if m.file == nil || !isReadOnly(m.root) {
		return nil
	}
	return fmt.Errorf("%w: the kernel made the pool %s read-only after it could not write to it, as when"+
		" the disk below fails; it is mounted again when the disk has %d MiB free and no pod on this node"+
		" uses a volume of backend %s any more", volume.ErrUnavailable, m.file.path(), roomToRepair>>20, Name)
}

// repair opens a pool that is down, and with idle set mounts one again that cannot be written.
func (m *mountpoint) repair(idle bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.down == nil {
		err := m.checkWritable()
		if err == nil || !idle || freeOn(m.file.dir) < roomToRepair {
			return err
		}
		if err := m.takeDown(); err != nil {
			return err
		}
	}

	if m.down = m.up(context.Background()); m.down != nil {
		return m.down
	}

	return m.checkWritable()
}

// works reports whether the pool is open and can be written.
func (m *mountpoint) works() bool {
	_, leave, err := m.enterToWrite()
	if err == nil {
		leave()
	}
	return err == nil
}

// Err returns why the pool is down, nil if it is open.
func (m *mountpoint) Err() error {
	_, leave, err := m.enter()
	if err == nil {
		leave()
	}
	return err
}

// String describes the pool for logs.
func (m *mountpoint) String() string {
	fs, leave, err := m.enter()
	if err != nil {
		return err.Error()
	}
	defer leave()
	if m.file == nil {
		return fmt.Sprintf("directory %s of a btrfs disk, %s", m.root, fs.quota)
	}
	return fmt.Sprintf("btrfs in %s, %s", m.file.path(), fs.quota)
}

// Close closes the pool. With unmount set it is unmounted too; volumes that are mounted elsewhere stay where
// they are.
func (m *mountpoint) Close(unmount bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	var err error
	if m.down == nil {
		err = m.fs.Close()
		m.down = fmt.Errorf("%w: pool %s is closed", volume.ErrUnavailable, m.root)
	}

	if unmount && m.file != nil && isMounted(m.root) {
		if e := unix.Unmount(m.root, unix.UMOUNT_NOFOLLOW); e != nil {
			err = errors.Join(err, fmt.Errorf("unmount pool %s: %w", m.root, e))
		}

		// The pool's device refused to discard, and is free now.
		err = errors.Join(err, loopcontrol.Mend())
	}

	return err
}

// isReadOnly reports whether the kernel has made the file system of a path read-only.
func isReadOnly(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.ST_RDONLY != 0
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
