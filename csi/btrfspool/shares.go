package btrfspool

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// shares are what volumes may take of the pool: their limits, raised by what copies keep of them, and the
// bytes that are reserved for them. It is safe for concurrent use.
type shares struct {
	copies      *copies
	reservation *reservation // nil in a directory of a btrfs disk

	// mu guards what follows.
	mu      sync.Mutex
	volumes map[string]volume.Spec // by ID, without snapshots
}

func newShares(f *file) *shares {
	h := &shares{copies: newCopies(), volumes: map[string]volume.Spec{}}
	if f != nil {
		h.reservation = newReservation(f, h.unwritten)
	}
	return h
}

// limitOf is what the quota group of a volume may hold.
func (h *shares) limitOf(fs *subvolumes, s volume.Spec) int64 {
	limit := limitOf(s.Size)
	if fs.quota == btrfs.SimpleQuota {
		limit += h.copies.of(s.ID)
	}
	return limit
}

// know has a volume counted as the Spec says, from the next look on; undo takes that back.
func (h *shares) know(s volume.Spec) (undo func()) {
	if s.Snapshot {
		return func() {}
	}
	before, known := h.set(s)
	return func() {
		if known {
			h.set(before)
		} else {
			h.forget(s.ID)
		}
	}
}

func (h *shares) set(s volume.Spec) (before volume.Spec, known bool) {
	defer h.recount()
	h.mu.Lock()
	defer h.mu.Unlock()
	before, known = h.volumes[s.ID]
	h.volumes[s.ID] = s
	return before, known
}

func (h *shares) forget(id string) {
	defer h.recount()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.volumes, id)
}

func (h *shares) recount() {
	if h.reservation != nil {
		h.reservation.recount()
	}
}

// known returns the Spec of a volume that is there.
func (h *shares) known(id string) (volume.Spec, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, ok := h.volumes[id]
	return s, ok
}

// reserved returns the volumes that are reserved for.
func (h *shares) reserved() []volume.Spec {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reserved []volume.Spec
	for _, s := range h.volumes {
		if s.Reserve {
			reserved = append(reserved, s)
		}
	}
	return reserved
}

// unwritten returns what reserved volumes have yet to write.
func (h *shares) unwritten(fs *subvolumes) int64 {
	var sum int64
	for _, s := range h.reserved() {
		// One that is being made has written nothing.
		used, _ := fs.used(s.ID)
		sum += max(0, h.limitOf(fs, s)-used)
	}
	return sum
}

// reserve has the pool large enough for the whole of a volume from now on, if that was asked for. When that
// cannot be all is as before; undo makes it so later.
func (h *shares) reserve(fs *subvolumes, s volume.Spec) (undo func(), err error) {
	undo = h.know(s)
	if !s.Reserve || h.reservation == nil {
		return undo, nil
	}
	if err := h.reservation.demand(fs); err != nil {
		undo()
		return func() {}, err
	}
	return undo, nil
}

// release ends what reserve began, and what a copy keeps of others.
func (h *shares) release(id string) {
	h.copies.remove(id)
	h.forget(id)
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
	undo, err := h.reserve(fs, s)
	if err != nil {
		return err
	}
	if err := btrfs.Limit(fs.dir, sub, h.limitOf(fs, s)); err != nil {
		undo()
		return err
	}
	return nil
}

// enlarge gives a volume the limit of its new size, and has it take that. When it fails, what is reserved for
// the volume is as before, and its limit again at the next look.
func (h *shares) enlarge(fs *subvolumes, s volume.Spec, stretch func(volume.Spec) error) error {
	sub, err := fs.inspect(s.ID)
	if err != nil {
		return err
	}

	undo, err := h.reserve(fs, s)
	if err != nil {
		return err
	}

	err = btrfs.Limit(fs.dir, sub, h.limitOf(fs, s))
	if err == nil {
		err = stretch(s)
	}

	if err != nil {
		undo()
		h.copies.suspect(s.ID)
	}

	return err
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
