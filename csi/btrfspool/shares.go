package btrfspool

import (
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// shares are what volumes may take of the pool: their limits, raised by what copies keep of them, and the
// bytes that are reserved for them.
type shares struct {
	copies      *copies
	reservation *reservation // nil in a directory of a btrfs disk
}

// limitOf is what the quota group of a volume may hold.
func (h *shares) limitOf(fs *subvolumes, s volume.Spec) int64 {
	limit := limitOf(s.Size)
	if fs.quota == btrfs.SimpleQuota {
		limit += h.copies.of(s.ID)
	}
	return limit
}

// reserve has the pool large enough for the whole of a volume from now on, if that was asked for.
func (h *shares) reserve(fs *subvolumes, s volume.Spec) error {
	h.recover(fs, s)
	if !s.Reserve || h.reservation == nil {
		return nil
	}
	return h.reservation.demand(fs)
}

// recover is reserve for a volume that was acknowledged before: that the disk has no room for it now changes
// nothing about it.
func (h *shares) recover(fs *subvolumes, s volume.Spec) {
	if s.Reserve && h.reservation != nil && !s.Snapshot {
		h.reservation.keep(s.ID, h.limitOf(fs, s))
	}
}

// release ends what reserve began, and what a copy keeps of others.
func (h *shares) release(id string) {
	h.copies.remove(id)
	if h.reservation != nil {
		h.reservation.forget(id)
	}
}

// keepsOf returns what a copy that was just made of source keeps: all that the source has written and not
// freed by now, and what it kept itself.
func (*shares) keepsOf(fs *subvolumes, source volume.Spec) (map[string]int64, error) {
	keeps := maps.Clone(source.Keeps)
	if source.Snapshot {
		return keeps, nil
	}
	used, err := fs.used(source.ID)
	if err != nil {
		return nil, fmt.Errorf("usage of volume %s: %w", source.ID, err)
	}
	if keeps == nil {
		keeps = map[string]int64{}
	}
	keeps[source.ID] = used
	return keeps, nil
}

// raise gives the source of a copy room to write over what the copy has. A snapshot writes nothing.
func (h *shares) raise(fs *subvolumes, source volume.Spec) error {
	if source.Snapshot || fs.quota != btrfs.SimpleQuota {
		return nil
	}
	sub, err := fs.inspect(source.ID)
	if err != nil {
		return err
	}
	return h.limit(fs, source, sub)
}

// limit gives a volume its limit, and has the pool large enough for it.
func (h *shares) limit(fs *subvolumes, s volume.Spec, sub btrfs.Subvolume) error {
	if err := h.reserve(fs, s); err != nil {
		return err
	}
	return btrfs.Limit(fs.dir, sub, h.limitOf(fs, s))
}

// lower takes from a volume what deleted copies kept of it, when the kernel has freed that.
func (h *shares) lower(fs *subvolumes, s volume.Spec, sub btrfs.Subvolume) error {
	if !h.copies.isStale(s.ID) {
		return nil
	}

	limit := h.limitOf(fs, s)
	used, err := btrfs.Usage(fs.info, sub)
	if err != nil || used > limit {
		return err
	}

	if btrfs.LimitOf(fs.info, sub) > limit {
		if err := btrfs.Limit(fs.dir, sub, limit); err != nil {
			return err
		}
	}

	h.copies.settled(s.ID)
	h.recover(fs, s)
	return nil
}

// keptOfDead returns what copies keep of volumes that are gone. It was promised to them.
func (h *shares) keptOfDead(fs *subvolumes) (int64, error) {
	var sum int64
	for owner, bytes := range h.copies.owners() {
		_, err := fs.inspect(owner)
		switch {
		case errors.Is(err, os.ErrNotExist):
			sum += bytes
		case err != nil:
			return 0, err
		}
	}
	return sum, nil
}
