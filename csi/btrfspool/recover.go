package btrfspool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/retry"
)

// Survey looks at all volumes at once, see volume.Surveyor. Where that fails Recover looks at each.
func (p *Pool) Survey() (done func()) {
	fs, leave, err := p.enter()
	if err != nil {
		return func() {}
	}
	defer leave()

	if states, err := btrfs.Survey(fs.dir); err == nil {
		fs.surveyed.Store(&states)
	}
	return func() { fs.surveyed.Store(nil) }
}

// Recover makes a volume usable after a restart, see volume.Backend.
//
// An acknowledged volume may be missing after a power loss: its record is synced at once, the transaction
// that made it up to half a minute later. Nothing in it can have been synced by its user then, for that would
// have committed the transaction: an empty volume is what a disk would show, too. Missing though its
// transaction was committed, or though it was made in another pool, it is lost, or somewhere else.
func (p *Pool) Recover(s volume.Spec, origin volume.Origin) (volume.Origin, error) {
	fs, leave, err := p.enter()
	if err != nil {
		return origin, err
	}
	defer leave()

	if origin.Pool != "" && origin.Pool != fs.info.UUID {
		return origin, fmt.Errorf("%w: it is in pool %s, and the pool here is %s",
			volume.ErrDamaged, origin.Pool, fs.info.UUID)
	}

	p.shares.copies.Add(s.ID, s.Keeps)
	p.shares.know(s)

	was, err := fs.state(s.ID)
	switch {
	case err == nil:
		origin.Pool = fs.info.UUID
		if err := p.checkKey(s); err != nil {
			return origin, err
		}
		if s.Snapshot {
			return origin, nil
		}
		if err := p.shares.recover(fs, s, was); err != nil {
			return origin, err
		}
		return origin, p.stretch(s)
	case !errors.Is(err, os.ErrNotExist):
		return origin, fmt.Errorf("%w: %w", volume.ErrDamaged, err)
	case origin.Pool == "":
		return origin, fmt.Errorf("%w: %w; its record, of an earlier version, does not name its pool",
			volume.ErrLost, err)
	case s.Source != "":
		return origin, fmt.Errorf("%w: %w; it had the content of %s", volume.ErrLost, err, s.Source)
	case s.Imported != "":
		return origin, fmt.Errorf("%w: %w; it had imported content", volume.ErrLost, err)
	case origin.Token <= fs.committed:
		return origin, fmt.Errorf("%w: %w; it was made in transaction %d, and %d was on disk",
			volume.ErrLost, err, origin.Token, fs.committed)
	}

	return p.create(fs, s)
}

// inspector looks at all volumes of a pool at once.
type inspector struct {
	*mountpoint
	keys keyfile.Dir
}

// Inspect lists the pool once, and looks for the images in it, see volume.Inspector.
func (x *inspector) Inspect() (volume.Inspection, error) {
	fs, leave, err := x.enter()
	if err != nil {
		return volume.Inspection{}, err
	}
	defer leave()

	names, err := fs.list()
	if err != nil {
		return volume.Inspection{}, err
	}
	slices.Sort(names)
	of := func(s volume.Spec) error {
		if _, there := slices.BinarySearch(names, s.ID); !there {
			return fmt.Errorf("%w: its subvolume is not in the pool %s", volume.ErrLost, x.root)
		}
		return x.lookForImage(s)
	}

	return volume.Inspection{
		Of:   of,
		Pool: fs.info.UUID,
		Part: x.isShort,
		Wear: x.wear(fs),
	}, nil
}

// lookForImage returns volume.ErrLost for an image that is not in its subvolume, or without its key.
func (x *inspector) lookForImage(s volume.Spec) error {
	if !isImage(s) {
		return nil
	}

	if _, err := x.sizeOf(s.ID); errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w: its image is not in its subvolume in the pool %s", volume.ErrLost, x.root)
	}
	if s.Encryption == "" {
		return nil
	}
	return x.keys.Look(s.ID)
}

// isShort reports whether an image is smaller than its volume.
func (x *inspector) isShort(s volume.Spec) bool {
	if !isImage(s) {
		return false
	}
	size, err := x.sizeOf(s.ID)
	return err == nil && size < s.Size
}

// sizeOf returns the size of an image in the pool.
func (x *inspector) sizeOf(id string) (int64, error) {
	fs, leave, err := x.enter()
	if err != nil {
		// What is wrong with the pool, which may be ENOENT, is no volume's.
		return 0, volume.ErrUnavailable
	}
	defer leave()

	var st unix.Stat_t
	err = unix.Fstatat(int(fs.dir.Fd()), filepath.Join(id, imageName), &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Size, err
}

// wear returns what the device below has failed at. Of a disk that others mount it may not be known.
func (m *mountpoint) wear(fs *subvolumes) error {
	counts, _ := btrfs.Errors(fs.info)
	if len(counts) == 0 {
		return nil
	}

	// Without their numbers, which grow on a disk that fails: each change is reported.
	kinds := strings.Join(slices.Sorted(maps.Keys(counts)), ", ")
	return fmt.Errorf("btrfs has counted %s on the device of the pool %s: save the data, and look at the"+
		" disk below; btrfs device stats %s says how many, and with -z begins to count again",
		strings.ReplaceAll(kinds, "_errs", " errors"), m.root, m.root)
}

// recover finishes what was cut short of a volume that is there. That its limit is too high shows when all
// copies are known.
func (h *shares) recover(fs *subvolumes, s volume.Spec, was btrfs.State) error {
	limit, err := h.neededOf(fs, tenantOf(s))
	if err != nil {
		return err
	}
	if err := fs.recoverLimit(was, limit); err != nil {
		return err
	}

	// A limit that is raised was raised for a reason: it has to be counted what that was.
	if isImage(s) || was.Limit > limitOf(s.Size) {
		h.copies.Suspect(s.ID)
		h.old.Suspect(s.ID, was.Limit-limitOf(s.Size))
	}

	if !was.Together {
		return h.restrain(fs, s, was.Subvolume)
	}
	return nil
}

// sweepPeriod is how often quota groups are looked for whose subvolumes are gone.
const sweepPeriod = time.Minute

// sweep removes quota groups whose subvolumes are gone, at once and then now and then until ctx ends: what a
// killed process left, and what the kernel had not freed yet. What cannot be removed the doctor names.
func (m *mountpoint) sweep(ctx context.Context) {
	for range retry.Every(ctx, sweepPeriod) {
		fs, leave, err := m.enterToWrite()
		if err != nil {
			continue
		}
		_ = btrfs.RemoveLeftover(fs.dir)
		leave()
	}
}

// baseline is the number of the last transaction that was on disk before the pool was mounted: what was made
// up to then cannot be missing because of a power loss.
//
// After a power loss the pool is mounted in the state of its last transaction, and mounting may commit the
// next one, with what the log of synced files holds. A volume that was made in that next one is missing then,
// although the pool has reached its number. So the number is written down before the pool is mounted, and
// kept until all volumes are recovered: a process that is killed on the way leaves it to the next one.
//
// It is kept in one file that is written over in place, for there may be no room for another one when it is
// needed. Where even that is impossible it is kept in memory: then a process that is killed on the way finds
// volumes damaged that could have been made again.
type baseline struct{ dir string }

func (b baseline) path() string { return filepath.Join(b.dir, "pool.settled") }

// recovered, in place of a transaction, says that the last recovery was finished. To earlier versions it says
// that nothing is missing because of a power loss.
const recovered = math.MaxUint64

// beforeMount returns the baseline of a pool that is about to be mounted, and writes it down.
func (b baseline) beforeMount(image string) (uint64, error) {
	known, found, err := b.read()
	if found || err != nil {
		// A recovery was cut short: what it started from counts.
		return known, err
	}

	generation, err := generationOf(image)
	if err != nil {
		return 0, err
	}
	if err := b.write(generation); err != nil && !errors.Is(err, unix.ENOSPC) {
		return 0, err
	}

	return generation, nil
}

// ofMounted returns the baseline of a pool that was found mounted.
func (b baseline) ofMounted(root string) (uint64, error) {
	known, found, err := b.read()
	if found || err != nil {
		return known, err
	}
	dir, err := os.Open(root)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	info, err := btrfs.Stat(dir)
	return info.Generation, err
}

// read returns what was written down and not yet cleared. A torn file counts as none.
func (b baseline) read() (generation uint64, found bool, err error) {
	text, err := os.ReadFile(b.path())
	if errors.Is(err, os.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}

	generation, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || generation == recovered {
		return 0, false, nil
	}

	return generation, true, nil
}

func (b baseline) write(generation uint64) error {
	f, err := os.OpenFile(b.path(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	// It always has the same length, so that it never needs another block.
	if _, err := fmt.Fprintf(f, "%-20d\n", generation); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}

	return durable.SyncDir(b.dir)
}

// clear is called when all volumes are recovered.
func (b baseline) clear() error {
	_, found, err := b.read()
	if err != nil || !found {
		return err
	}
	return b.write(recovered)
}

// generationOf reads the number of the last transaction from the superblock of a file system that is not
// mounted.
func generationOf(image string) (uint64, error) {
	f, err := os.Open(image)
	if err != nil {
		return 0, err
	}
	defer f.Close()

	// Magic and generation.
	var super [16]byte
	if _, err := f.ReadAt(super[:], 64<<10+64); err != nil {
		return 0, fmt.Errorf("read superblock of %s: %w", image, err)
	}
	if magic := string(super[:8]); magic != "_BHRfS_M" {
		return 0, fmt.Errorf("%s holds no btrfs (magic %q)", image, magic)
	}

	return binary.LittleEndian.Uint64(super[8:]), nil
}
