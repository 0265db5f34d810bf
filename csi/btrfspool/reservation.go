package btrfspool

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

const (
	// lookPeriod is how long a writer has the headroom for. While nobody writes there is a look at least
	// every idlePeriod, and so often that what is free is more than one who begins writes until the next.
	lookPeriod = 100 * time.Millisecond
	idlePeriod = time.Second
	topSpeed   = 3 << 30 // bytes per second

	// writing is a burst by which somebody writes.
	writing = 1 << 20

	// countReserved is how long a count of what reserved volumes have yet to write holds.
	countReserved = 2 * time.Second

	// guardStep is by how much the limit of those that are not reserved may be too low.
	guardStep = 8 << 20

	// restAfterFailure is how long nothing is filled, or shrunk, after that failed.
	restAfterFailure = 30 * time.Second

	// restWhileInTheWay is how long nothing is shrunk after there was a chunk in the way.
	restWhileInTheWay = time.Second
)

// reservation keeps the pool's file as large as it should be, and all its blocks reserved.
type reservation struct {
	file *file

	// promised is what all volumes may be charged for, as was said when the capacity was asked for last.
	promised atomic.Int64

	// mu is held while the size is looked at and changed, and guards what follows.
	mu      sync.Mutex
	content int64     // at the last look
	written int64     // before the last look, see btrfs.Meter
	free    int64     // at the last look, without what is reserved
	settled bool      // the last look had nothing to do
	working bool      // the last look has changed the size, and the next one may have to
	stuck   bool      // the pool should be larger, and cannot be
	burst   int64     // see measure
	rest    time.Time // until when nothing is shrunk
	kept    int64     // bytes that seem to be holes even after they were filled, as where a disk compresses

	// restFilling is until when no blocks are given to the file.
	restFilling time.Time

	// count returns what reserved volumes have yet to write.
	count func(*subvolumes) int64

	// usedMu guards what was counted last; never held while the size is changed.
	usedMu    sync.Mutex
	unwritten int64
	countedAt time.Time
}

func newReservation(f *file, count func(*subvolumes) int64) *reservation {
	return &reservation{file: f, count: count}
}

// recount has what is reserved counted at the next look.
func (r *reservation) recount() {
	r.usedMu.Lock()
	defer r.usedMu.Unlock()
	r.countedAt = time.Time{}
}

// outstanding returns what reserved volumes have yet to write.
func (r *reservation) outstanding(fs *subvolumes) int64 {
	r.usedMu.Lock()
	defer r.usedMu.Unlock()
	if time.Since(r.countedAt) < countReserved {
		return r.unwritten
	}
	r.unwritten, r.countedAt = r.count(fs), time.Now()
	return r.unwritten
}

// measure looks at pool and disk. mu is held.
func (r *reservation) measure(fs *subvolumes) (measure, error) {
	var err error
	if r.written, err = fs.meter.Written(); err != nil {
		return measure{}, err
	}
	room, err := fs.meter.Room()
	if err != nil {
		return measure{}, err
	}

	// A burst is believed in for some seconds.
	content := room.Content()
	r.burst = max(content-r.content, r.burst-r.burst/32)
	if r.content == 0 {
		r.burst = 0
	}
	r.content = content

	size, holes, err := r.file.stat()
	if err != nil {
		return measure{}, err
	}

	reserved := r.outstanding(fs)
	r.free = max(0, room.Free()-reserved)

	return measure{
		room:     room,
		file:     size,
		holes:    max(0, holes-r.kept),
		reserved: reserved,
		burst:    r.burst,
		disk:     r.file.disk(),
		most:     r.file.most / sizeStep * sizeStep,
	}, nil
}

// fit brings the pool to the size that it should have. It returns why it is not there, if the disk has no
// room for it.
func (r *reservation) fit(fs *subvolumes) error {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.settled, r.working = false, false
	m, err := r.measure(fs)
	if err != nil {
		return err
	}
	r.stuck = m.isStuck()
	if err := r.guard(fs, m); err != nil {
		return err
	}

	switch change := m.change(); {
	case m.file/sizeStep > m.room.Device/sizeStep:
		// A change was cut short.
		return r.settle(fs, m.file)
	case change > 0:
		err := r.grow(fs, change)
		r.working = err == nil
		return errors.Join(err, r.guardNow(fs))
	case change < 0 && time.Now().After(r.rest):
		err := r.shrink(fs, m, m.room.Device+change)
		r.working = err == nil && !r.rest.After(time.Now())
		return errors.Join(err, r.guardNow(fs))

	case m.holes > 0:
		return r.fill(m)
	case m.short() && r.isWanted(m):
		return fmt.Errorf("the pool %s has little room left, and the disk below has none for it to grow;"+
			" writes beyond fail until there is, and nothing else does", r.file.path())
	}

	r.settled = m.change() == 0 && !r.stuck
	return nil
}

// isDue reports whether there is anything to do for fit: there was the last time, or somebody has written. It
// costs little.
func (r *reservation) isDue(fs *subvolumes) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.settled || r.burst > writing {
		return true
	}
	written, err := fs.meter.Written()
	return err != nil || written != r.written
}

// pause is how long there is to the next look.
func (r *reservation) pause() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.stuck:
		return idlePeriod
	case r.burst > writing, r.working:
		return lookPeriod
	}
	return pauseFor(r.free)
}

// pauseFor is how long nobody has to look at a pool with so many bytes free, in which nobody writes.
func pauseFor(free int64) time.Duration {
	pause := time.Duration(float64(free) / topSpeed * float64(time.Second))
	return min(max(pause, lookPeriod), idlePeriod)
}

// isWanted reports whether volumes may write more than the pool has.
func (r *reservation) isWanted(m measure) bool {
	return r.promised.Load()-m.room.Content() > m.room.Free()
}

func (r *reservation) settle(fs *subvolumes, size int64) error {
	dev, err := r.file.device()
	if err != nil {
		return err
	}
	defer dev.Close()
	return r.file.settle(dev, fs.dir, size)
}

// grow makes file, device and file system larger, in this order: none is ever larger than the one below.
func (r *reservation) grow(fs *subvolumes, bytes int64) error {
	size, err := r.file.extend(bytes)
	if err != nil {
		return err
	}
	return r.settle(fs, size)
}

// shrink gives back to the disk what is beyond the size, as far as there is no chunk of data: one that is
// being moved cannot be written in place, and who does gets ENOSPC at times. The kernel takes empty chunks
// away by itself; those of metadata are moved.
func (r *reservation) shrink(fs *subvolumes, m measure, size int64) error {
	end, err := fs.meter.DataEnd()
	if err != nil {
		return err
	}

	size = max(size, (end+sizeStep-1)/sizeStep*sizeStep)
	if size >= m.room.Device {
		r.rest = time.Now().Add(restWhileInTheWay)
		return nil
	}

	dev, err := r.file.device()
	if err != nil {
		return err
	}
	defer dev.Close()

	if _, _, err := r.file.stat(); err != nil {
		return err
	}
	if err := btrfs.Resize(fs.dir, size); err != nil {
		// There is no place for the metadata; at another time there may be.
		r.rest = time.Now().Add(restAfterFailure)
		return nil
	}

	return r.file.cut(dev, size)
}

// fill gives the file the blocks that it lacks. It is that of an earlier version, which kept it sparse, or
// was copied by somebody who did.
func (r *reservation) fill(m measure) error {
	if time.Now().Before(r.restFilling) || m.holes > m.disk {
		return r.file.checkDense()
	}

	if err := r.file.fill(); err != nil {
		r.restFilling = time.Now().Add(restAfterFailure)
		return err
	}

	_, holes, err := r.file.stat()
	r.kept = holes
	return err
}

// guard has all volumes that are not reserved for leave free what is reserved and not yet written, and what
// it takes to write that, however full the disk is. Their limit is the same until the pool has another size.
func (r *reservation) guard(fs *subvolumes, m measure) error {
	if fs.quota != btrfs.SimpleQuota {
		return nil
	}

	used, have, err := btrfs.UsageTogether(fs.info)
	if err != nil {
		return err
	}

	want := m.limitOfOthers(used)
	if want > have && have >= 0 {
		// Nobody gets what was freed in a reserved volume since that was last counted.
		r.recount()
		m.reserved = r.outstanding(fs)
		want = m.limitOfOthers(used)
	}

	if want == have || want >= 0 && have >= 0 && have <= want && want-have < guardStep {
		return nil
	}
	return btrfs.LimitTogether(fs.dir, fs.info, want)
}

// guardNow is guard when the size has changed.
func (r *reservation) guardNow(fs *subvolumes) error {
	m, err := r.measure(fs)
	if err != nil {
		return err
	}
	return r.guard(fs, m)
}

// missing returns how many bytes the pool lacks for what is reserved, which is guarded if there are none.
func (r *reservation) missing(fs *subvolumes) (int64, measure, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, err := r.measure(fs)
	if err != nil || m.reserved > m.room.Free() {
		return m.reserved - m.room.Free(), m, err
	}

	// What others have written until they are limited is seen afterwards.
	if err := r.guard(fs, m); err != nil {
		return 0, m, err
	}
	m, err = r.measure(fs)
	return m.reserved - m.room.Free(), m, err
}

// demand makes the pool so large that all reserved volumes can be written in full; volume.ErrFull if the disk
// has no room for that, volume.ErrUnavailable while not all others are limited by guard.
func (r *reservation) demand(fs *subvolumes) error {
	if err := btrfs.KeepTogether(fs.dir, fs.info); err != nil {
		return fmt.Errorf("%w: the pool %s cannot reserve: %w", volume.ErrUnavailable, r.file.path(), err)
	}

	for {
		missing, m, err := r.missing(fs)
		if missing <= 0 || err != nil {
			return err
		}
		if m.change() < min(missing, sizeStep) {
			return fmt.Errorf("%w: the pool %s lacks %d bytes for reserved volumes, the disk below has %d",
				volume.ErrFull, r.file.path(), missing, m.disk)
		}
		if err := r.fit(fs); err != nil {
			return err
		}
	}
}
