package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
)

// A pool is open or it is down. It is down when its file is missing, or cannot be mounted at the moment; then
// Check tries again.
//
// The kernel makes the file system read-only for good when it could not write to it: the file below is
// sparse, and the disk was full. Only unmounting it everywhere and mounting it again heals that, which Check
// does once no volume is in use and the disk has room.

// roomToHeal is what the disk has to have free before a file system is mounted again that could not write for
// want of room.
const roomToHeal = 64 << 20

// enter keeps the pool open until leave is called, and fails if it is down.
func (p *Pool) enter() error {
	p.mu.RLock()
	if p.down != nil {
		defer p.mu.RUnlock()
		return p.down
	}
	return nil
}

func (p *Pool) leave() { p.mu.RUnlock() }

// enterToWrite is enter for what changes the file system or lets a pod in.
func (p *Pool) enterToWrite() error {
	if err := p.enter(); err != nil {
		return err
	}
	if p.readOnly() {
		defer p.leave()
		return p.readOnlyError()
	}
	return nil
}

// Check implements volume.Backend.
func (p *Pool) Check(idle bool) error {
	if p.enter() == nil {
		broken := p.readOnly()
		if !broken {
			p.keepRoom()
		}

		p.leave()
		if !broken {
			return nil
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.down == nil && (!idle || p.freeBelow() < roomToHeal) {
		return p.readOnlyError()
	}

	if p.down == nil {
		if err := p.takeDown(); err != nil {
			return err
		}
	}

	if p.down = p.bringUp(context.Background()); p.down == nil && p.readOnly() {
		return p.readOnlyError()
	}

	return p.down
}

// readOnly reports whether the kernel has given the file system up. It was mounted to be written.
func (p *Pool) readOnly() bool {
	var fs unix.Statfs_t
	return p.image != "" && unix.Statfs(p.root, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}

func (p *Pool) readOnlyError() error {
	return fmt.Errorf("%w: the kernel made the pool %s read-only after it could not write to it, as when"+
		" the disk below is full; it is mounted anew when the disk has %d MiB free and no pod on this node"+
		" uses a volume of backend %s any more", volume.ErrUnavailable, p.image, roomToHeal>>20, Name)
}

// takeDown unmounts the file system. What else holds it, in another mount namespace, keeps it as it is.
func (p *Pool) takeDown() error {
	if err := p.volumes.Close(); err != nil {
		return err
	}
	p.down = fmt.Errorf("%w: the pool %s is being mounted anew", volume.ErrUnavailable, p.image)
	if err := unix.Unmount(p.root, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("%w: unmount pool %s: %w", volume.ErrUnavailable, p.root, err)
	}
	return nil
}

// bringUp makes the pool if there never was one, mounts it if it is not mounted, grows it if it shall be
// larger, and enables quotas. Every step can be repeated, and writes nothing where all is done: a full disk
// is no reason not to open a pool.
func (p *Pool) bringUp(ctx context.Context) error {
	err := p.tryUp(ctx)
	if err != nil && !errors.Is(err, volume.ErrDamaged) {
		err = fmt.Errorf("%w: pool %s: %w", volume.ErrUnavailable, p.root, err)
	}
	return err
}

func (p *Pool) tryUp(ctx context.Context) error {
	if p.image != "" {
		// else the file is in use, even if its name is gone
		if !mounted(p.root) {
			if err := p.format(ctx); err != nil {
				return err
			}
		}

		if err := p.mount(); err != nil {
			return err
		}
	}

	if err := p.open(); err != nil {
		return err
	}

	p.keepRoom()
	if err := p.identify(); err != nil {
		return errors.Join(err, p.volumes.Close())
	}

	return nil
}

// exists reports whether a pool was ever made here.
func (p *Pool) exists() bool {
	_, file := os.Lstat(p.image)
	_, id := os.Lstat(p.idPath())
	return file == nil || id == nil
}

// idPath is where it is written down which pool is kept here, so that a file that is missing is not taken for
// one that never was.
func (p *Pool) idPath() string { return filepath.Join(p.cfg.Dir, "pool.id") }

func (p *Pool) identify() error {
	if p.image == "" {
		// the note would be in the same file system
		return nil
	}

	known, err := os.ReadFile(p.idPath())
	if err == nil && strings.TrimSpace(string(known)) == p.info.UUID {
		return nil
	}

	err = durable.WriteFile(p.idPath(), []byte(p.info.UUID+"\n"), 0o600)
	if errors.Is(err, unix.ENOSPC) {
		// the next start writes it
		return nil
	}

	return err
}

// missing is what becomes of a pool whose file is not there: its volumes are damaged, and none is made in its
// place.
func (p *Pool) missing() error {
	id, err := os.ReadFile(p.idPath())
	if errors.Is(err, os.ErrNotExist) {
		// there never was one
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: the file %s of pool %s is missing; bring it back, and its volumes are there"+
		" again without a restart; if it is lost for good, remove %s, and a new, empty pool is made",
		volume.ErrDamaged, p.image, strings.TrimSpace(string(id)), p.idPath())
}

// Err is why the pool is down, nil if it is open.
func (p *Pool) Err() error {
	if err := p.enter(); err != nil {
		return err
	}
	p.leave()
	return nil
}

// Close closes the pool. With unmount set it is unmounted too; volumes that are mounted elsewhere stay where
// they are.
func (p *Pool) Close(unmount bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()

	var err error
	if p.down == nil {
		err = p.volumes.Close()
		p.down = fmt.Errorf("%w: pool %s is closed", volume.ErrUnavailable, p.root)
	}

	if unmount && p.image != "" && btrfs.On(p.root) && mounted(p.root) {
		if e := unix.Unmount(p.root, unix.UMOUNT_NOFOLLOW); e != nil {
			err = errors.Join(err, fmt.Errorf("unmount pool %s: %w", p.root, e))
		}
	}

	return err
}
