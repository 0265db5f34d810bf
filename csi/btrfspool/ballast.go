package btrfspool

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// ballast is a file of no content whose blocks are given to the disk when a volume is deleted while the disk
// is full. Deleting a volume is a transaction, too, and a transaction needs new blocks in the pool's sparse
// file; if there were none, the kernel would make the whole pool read-only. What a deletion has freed fills
// the file again.
type ballast struct {
	dir string

	// mu guards used.
	mu   sync.Mutex
	used time.Time // when a volume was deleted on a full disk the last time
}

const (
	// ballastSize is the size of the file in bytes; a deletion takes less than a MiB.
	ballastSize = 32 << 20

	// trimFor is for how long after a deletion on a full disk the pool returns to the disk what has become
	// free in it, as soon as it has. Otherwise that takes the kernel some minutes.
	trimFor = time.Minute
)

func (b *ballast) path() string { return filepath.Join(b.dir, "pool.room") }

// keep fills the file while the disk has room for it, and helps the disk to room after deletions. What fails
// is tried again by the next call.
func (b *ballast) keep(fs *subvolumes) {
	if freeOn(b.dir) < ballastSize && b.recentlyUsed() {
		_ = btrfs.Trim(fs.dir)
	}
	if st, err := os.Stat(b.path()); err == nil && st.Size() >= ballastSize || freeOn(b.dir) < 2*ballastSize {
		return
	}

	f, err := os.OpenFile(b.path(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	defer f.Close()

	if unix.Fallocate(int(f.Fd()), 0, 0, ballastSize) != nil {
		_ = f.Truncate(0)
	}
}

// drop gives the blocks to the disk if that is full.
func (b *ballast) drop() error {
	if freeOn(b.dir) >= ballastSize {
		return nil
	}

	b.mu.Lock()
	b.used = time.Now()
	b.mu.Unlock()

	f, err := os.OpenFile(b.path(), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()

	return errors.Join(f.Truncate(0), f.Sync())
}

func (b *ballast) recentlyUsed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Since(b.used) < trimFor
}
