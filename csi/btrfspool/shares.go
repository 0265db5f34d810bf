package btrfspool

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/copies"
	"github.com/trivet-node/trivet/csi/volume"
)

// shares are what volumes may take of the pool: their limits, raised by what copies keep of them, and the
// bytes that are reserved for them. It is safe for concurrent use.
type shares struct {
	copies      *copies.Copies
	old         *copies.Old
	reservation *reservation // nil in a directory of a btrfs disk

	// limiting is held while limits are set to what they should be.
	limiting sync.Mutex

	// mu guards what follows.
	mu      sync.Mutex
	volumes map[string]tenant // by ID, without snapshots
}

// tenant is what of a volume's Spec its share follows from. There may be thousands.
type tenant struct {
	id                     string
	size                   int64
	image, reserve, copied bool
}

func tenantOf(s volume.Spec) tenant {
	return tenant{
		id:      s.ID,
		size:    s.Size,
		image:   isImage(s),
		reserve: s.Reserve,
		copied:  s.Source != "",
	}
}

func newShares(f *file) *shares {
	h := &shares{copies: copies.New(), old: copies.NewOld(), volumes: map[string]tenant{}}
	if f != nil {
		h.reservation = newReservation(f, h.unwritten)
	}
	return h
}

// promisedOf is what is promised for a volume: its size, and what copies keep of it.
func (h *shares) promisedOf(fs *subvolumes, t tenant) int64 {
	limit := limitOf(t.size)
	if fs.quota == btrfs.SimpleQuota {
		limit += h.copies.Of(t.id)
	}
	return limit
}

// neededOf is what a volume is charged for in any case when it is full: what is promised for it, and of an
// image what it is charged for and does not have, or its device would fail below its size.
func (h *shares) neededOf(fs *subvolumes, t tenant) (int64, error) {
	dead, err := fs.deadOf(t)
	return h.promisedOf(fs, t) + dead, err
}

// limitOf is what the quota group of a volume may hold: what is needed for it, now and when all that is old
// of it is written over.
func (h *shares) limitOf(fs *subvolumes, t tenant) (int64, error) {
	needed, err := h.neededOf(fs, t)
	return max(needed, h.promisedOf(fs, t)+h.old.Of(t.id)), err
}

// know has a volume counted as the Spec says, from the next look on; undo takes that back.
func (h *shares) know(s volume.Spec) (undo func()) {
	if s.Snapshot {
		return func() {}
	}
	before, known := h.set(tenantOf(s))
	return func() {
		if known {
			h.set(before)
		} else {
			h.forget(s.ID)
		}
	}
}

// set returns what was known before, if anything was.
func (h *shares) set(t tenant) (before tenant, known bool) {
	defer h.recount()
	h.mu.Lock()
	defer h.mu.Unlock()
	before, known = h.volumes[t.id]
	h.volumes[t.id] = t
	return before, known
}

// forget returns when nobody changes the limit of the volume any more: one that is set while it is destroyed
// would leave a quota group behind.
func (h *shares) forget(id string) {
	defer h.recount()
	h.limiting.Lock()
	defer h.limiting.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.volumes, id)
}

func (h *shares) recount() {
	if h.reservation != nil {
		h.reservation.recount()
	}
}

// known returns a volume that is there.
func (h *shares) known(id string) (t tenant, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok = h.volumes[id]
	return t, ok
}

// reserved returns the volumes that are reserved for.
func (h *shares) reserved() []tenant {
	h.mu.Lock()
	defer h.mu.Unlock()
	var reserved []tenant
	for _, t := range h.volumes {
		if t.reserve {
			reserved = append(reserved, t)
		}
	}
	return reserved
}

// unwritten returns what reserved volumes have yet to write.
func (h *shares) unwritten(fs *subvolumes) int64 {
	var sum int64
	for _, t := range h.reserved() {
		// One that is being made has written nothing.
		used, _ := fs.used(t.id)
		dead, _ := fs.deadOf(t)
		promised := h.promisedOf(fs, t)

		// What an image has dead blocks of is, as long as there are copies, what those keep.
		sum += max(0, max(promised+h.old.Of(t.id), limitOf(t.size)+dead)-used)
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
func (h *shares) release(id string, was btrfs.Subvolume) {
	for owner, kept := range h.copies.Remove(id, was) {
		if _, ok := h.known(owner); ok {
			h.old.Suspect(owner, kept)
		}
	}
	h.forget(id)
	h.old.Forget(id)
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
	keeps[source.ID] = rewritten(used)
	return keeps, nil
}

// rewritten is what a volume is charged for when it has written bytes to new places, block by block: each has
// an entry of its own in the volume's metadata then.
func rewritten(bytes int64) int64 { return bytes + bytes/32 }

// keep notes what a copy keeps, and gives its source the room that it needs then.
func (h *shares) keep(fs *subvolumes, s, source volume.Spec) error {
	h.copies.Add(s.ID, s.Keeps)
	return h.raise(fs, source)
}

// raise gives the source of a copy room to write over what the copy has. A snapshot writes nothing.
func (h *shares) raise(fs *subvolumes, source volume.Spec) error {
	if source.Snapshot || fs.quota != btrfs.SimpleQuota {
		return nil
	}
	h.old.Forget(source.ID)
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
	if err := h.setLimit(fs, s, sub); err != nil {
		undo()
		return err
	}
	return nil
}

func (h *shares) setLimit(fs *subvolumes, s volume.Spec, sub btrfs.Subvolume) error {
	h.limiting.Lock()
	defer h.limiting.Unlock()
	limit, err := h.limitOf(fs, tenantOf(s))
	if err != nil {
		return err
	}
	if err := btrfs.Limit(fs.dir, sub, limit); err != nil {
		return err
	}
	return h.restrain(fs, s, sub)
}

// restrain has a volume that is not reserved for leave to others what is, see reservation.guard.
func (h *shares) restrain(fs *subvolumes, s volume.Spec, sub btrfs.Subvolume) error {
	if s.Reserve || h.reservation == nil || fs.quota != btrfs.SimpleQuota {
		return nil
	}
	return btrfs.LimitedTogether(fs.dir, fs.info, sub)
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

	err = h.setLimit(fs, s, sub)
	if err == nil {
		err = stretch(s)
	}

	if err != nil {
		undo()
		h.copies.Suspect(s.ID)
	}

	return err
}

// slack is what a volume that holds more than it should may hold beyond that, to be written over in place
// while it does.
const slack = 1 << 20

// lower takes from a volume what deleted copies kept of it, as the kernel frees that. A volume that has more
// written to it than its size, and keeps that, may write nothing more. It returns by how much the limit is
// higher than what was promised.
func (h *shares) lower(fs *subvolumes, id string) (excess int64, err error) {
	if !h.copies.IsStale(id) {
		return 0, nil
	}

	// What the volume is now must not change until its limit has.
	h.limiting.Lock()
	defer h.limiting.Unlock()

	t, ok := h.known(id)
	if !ok {
		h.copies.Settled(id)
		return 0, nil
	}
	sub, err := fs.inspect(id)
	if err != nil {
		return 0, err
	}

	have := btrfs.LimitOf(fs.info, sub)
	allowed, err := h.allowed(fs, t, sub, have)
	if err != nil {
		return 0, err
	}
	if have != allowed {
		if err := btrfs.Limit(fs.dir, sub, allowed); err != nil {
			return 0, err
		}
	}

	excess = allowed - h.promisedOf(fs, t)
	if excess <= 0 {
		h.copies.Settled(id)
	}
	return max(0, excess), nil
}

// allowed is what a volume may be charged for that has a limit already: no more than that, and no less than
// it needs.
func (h *shares) allowed(fs *subvolumes, t tenant, sub btrfs.Subvolume, have int64) (int64, error) {
	used, err := btrfs.Usage(fs.info, sub)
	if err != nil {
		return 0, err
	}
	needed, err := h.neededOf(fs, t)
	if err != nil {
		return 0, err
	}
	limit, err := h.limitOf(fs, t)
	if err != nil {
		return 0, err
	}

	switch {
	case !h.copies.Freed(t.id, func(sub btrfs.Subvolume) bool { return isFreed(fs, sub) }):
		// Writing over what the kernel has yet to free takes room.
		limit = have
	case used > limit:
		limit = used + slack
	}
	return max(needed, min(have, limit)), nil
}

// exceeding returns how many bytes volumes may hold, or do, beyond what was promised for them.
func (h *shares) exceeding(fs *subvolumes) (int64, error) {
	var sum int64
	for _, id := range h.copies.Stales() {
		excess, err := h.lower(fs, id)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("limit of volume %s: %w", id, err)
		}
		sum += excess
	}
	return sum, nil
}

// keptOfDead returns what copies keep of volumes that are gone. It was promised to them.
func (h *shares) keptOfDead(fs *subvolumes) (int64, error) {
	var sum int64
	for owner, bytes := range h.copies.Owners() {
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
