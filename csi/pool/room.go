package pool

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// Deleting a volume is a transaction, too, and a transaction needs new blocks in the pool's sparse file. On a
// full disk there are none, and the kernel would give up the whole pool. So some blocks are kept for
// deletions, in a file of no other use: a deletion on a full disk begins with giving them to the disk, and
// what it has freed fills the file again.

// keptRoom is the size of that file; a deletion takes less than a MiB.
const keptRoom = 32 << 20

// trimFor is for how long after a deletion on a full disk the pool gives back to the disk what has become
// free in it, as soon as it has. Else that takes the kernel some minutes.
const trimFor = time.Minute

func (p *Pool) roomPath() string { return filepath.Join(p.cfg.Dir, "pool.room") }

// freeBelow is what the disk below has left.
func (p *Pool) freeBelow() int64 {
	var disk unix.Statfs_t
	if unix.Statfs(p.cfg.Dir, &disk) != nil {
		return 0
	}
	return int64(disk.Bavail) * disk.Bsize
}

// keepRoom fills the file while the disk has room for it, and helps the disk to room after deletions. Where
// it fails it is tried again.
func (p *Pool) keepRoom() {
	if p.image == "" {
		return
	}
	if p.freeBelow() < keptRoom && time.Now().Before(p.trimUntil()) {
		_ = btrfs.Trim(p.volumes)
	}
	if st, err := os.Stat(p.roomPath()); err == nil && st.Size() >= keptRoom || p.freeBelow() < 2*keptRoom {
		return
	}

	f, err := os.OpenFile(p.roomPath(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	defer f.Close()

	if unix.Fallocate(int(f.Fd()), 0, 0, keptRoom) != nil {
		_ = f.Truncate(0)
	}
}

// useRoom gives the kept room to the disk if that is full.
func (p *Pool) useRoom() error {
	if p.image == "" || p.freeBelow() >= keptRoom {
		return nil
	}

	p.counting.Lock()
	p.deleted = time.Now()
	p.counting.Unlock()
	f, err := os.OpenFile(p.roomPath(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()

	return errors.Join(f.Truncate(0), f.Sync())
}

func (p *Pool) trimUntil() time.Time {
	p.counting.Lock()
	defer p.counting.Unlock()
	return p.deleted.Add(trimFor)
}
