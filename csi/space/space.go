// Package space keeps the ledger of promised bytes. Nothing is overcommitted: a volume counts with its full
// size from the moment its creation begins until its deletion is done, written or not. It knows volumes by
// their IDs and sizes only; how many bytes there are to promise is asked of what holds them and of the disk
// beneath each time, because others write to that disk, too.
package space

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
)

// Promise is the size of one volume.
type Promise struct {
	ID      string
	Backend string
	Bytes   int64
}

// Promised is what all volumes of one backend may grow to.
type Promised struct {
	Bytes int64
	Count int64

	// Each returns the promises one by one. It takes time where there are thousands.
	Each func() []Promise
}

// Capacity is what a backend has for volumes, in bytes.
type Capacity struct {
	Limit     int64 // to promise in all
	Unwritten int64 // promised, but not yet taken from the disk beneath
	Spare     int64 // taken from the disk beneath, and promised to nobody
}

// Backend measures what holds volumes.
type Backend interface {
	Capacity(Promised) (Capacity, error)
}

// Disk measures the disk on which all backends keep their bytes.
type Disk interface {
	// Free returns the bytes that volumes can still take from it.
	Free() (int64, error)
}

// Shortage is the error of a promise that cannot be made.
type Shortage struct {
	Promise Promise
	More    int64 // bytes that the volume needs beside those that it was promised before
	Free    int64 // bytes that its backend can still promise
}

func (s *Shortage) Error() string {
	return fmt.Sprintf("volume %s needs %d bytes more, backend %s has %d",
		s.Promise.ID, s.More, s.Promise.Backend, s.Free)
}

// Config of a Ledger.
type Config struct {
	Disk     Disk
	Backends map[string]Backend // by name
	Most     int64              // bytes that are promised to all volumes together; 0: as the disk allows
}

// Ledger is the sum of all promises. It is safe for concurrent use.
type Ledger struct {
	cfg Config

	// promising is held from measuring to promising, so that the same bytes cannot be promised twice.
	promising sync.Mutex

	// mu guards what follows; never held while something is measured.
	mu       sync.Mutex
	accounts map[string]*account // by backend
}

// account is what one backend has promised.
type account struct {
	sum   int64            // bytes of all volumes
	bytes map[string]int64 // by volume, which no other account has
}

// New returns a ledger without promises.
func New(cfg Config) *Ledger {
	return &Ledger{cfg: cfg, accounts: map[string]*account{}}
}

// Promise gives volumes of one backend their bytes, all of them, or returns a *Shortage. An earlier promise
// to the same volume counts for it if it was by the same backend, and is replaced.
func (l *Ledger) Promise(promises ...Promise) error {
	if len(promises) == 0 {
		return nil
	}

	l.promising.Lock()
	defer l.promising.Unlock()

	free, err := l.available(promises[0].Backend)
	if err != nil {
		return err
	}

	more := int64(0)
	for _, p := range promises {
		more += p.Bytes - l.of(p.Backend, p.ID)
	}
	if more > free {
		return &Shortage{Promise: promises[0], More: more, Free: max(free, 0)}
	}

	for _, p := range promises {
		l.Record(p)
	}
	return nil
}

// Record enters a promise that was made before: by an earlier process, or before a growth that failed. It
// replaces that of the same volume.
func (l *Ledger) Record(p Promise) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(p.ID)
	a := l.accounts[p.Backend]
	if a == nil {
		a = &account{bytes: map[string]int64{}}
		l.accounts[p.Backend] = a
	}
	a.bytes[p.ID] = p.Bytes
	a.sum += p.Bytes
}

// Release makes the bytes of a volume free again. A volume without a promise has none.
func (l *Ledger) Release(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(id)
}

// remove takes a promise out, if there is one. mu is held.
func (l *Ledger) remove(id string) {
	for _, a := range l.accounts {
		a.sum -= a.bytes[id]
		delete(a.bytes, id)
	}
}

// of returns how many bytes a volume was promised by a backend.
func (l *Ledger) of(backend, id string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.accounts[backend]; a != nil {
		return a.bytes[id]
	}
	return 0
}

// promised returns what a backend has promised.
func (l *Ledger) promised(backend string) Promised {
	l.mu.Lock()
	defer l.mu.Unlock()
	each := func() []Promise { return l.each(backend) }
	a := l.accounts[backend]
	if a == nil {
		return Promised{Each: each}
	}
	return Promised{Bytes: a.sum, Count: int64(len(a.bytes)), Each: each}
}

func (l *Ledger) each(backend string) []Promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.accounts[backend]
	if a == nil {
		return nil
	}
	all := make([]Promise, 0, len(a.bytes))
	for id, bytes := range a.bytes {
		all = append(all, Promise{ID: id, Backend: backend, Bytes: bytes})
	}
	return all
}

// Available returns how many bytes a backend can still promise: never more than the disk has free at this
// moment after all that is promised and not yet written. It is negative when more is promised than there is.
func (l *Ledger) Available(backend string) (int64, error) {
	l.promising.Lock()
	defer l.promising.Unlock()
	return l.available(backend)
}

func (l *Ledger) available(backend string) (int64, error) {
	disk, err := l.cfg.Disk.Free()
	if err != nil {
		return 0, err
	}

	free, total := int64(math.MaxInt64), int64(0)
	for name, b := range l.cfg.Backends {
		promised := l.promised(name)
		total += promised.Bytes
		capacity, err := b.Capacity(promised)
		switch {
		case err != nil && name == backend:
			return 0, fmt.Errorf("space of backend %s: %w", name, err)
		case err != nil:
			// Nobody knows how much of it is written.
			capacity.Unwritten = promised.Bytes
		}

		disk -= capacity.Unwritten
		if name == backend {
			free = capacity.Limit - promised.Bytes
			disk += capacity.Spare
		}
	}

	if l.cfg.Most > 0 {
		free = min(free, l.cfg.Most-total)
	}

	return min(free, disk), nil
}

// Use is how much of a backend is promised and free, in bytes.
type Use struct {
	Backend   string
	Volumes   int64 // how many have a promise, and deleted ones that copies keep blocks of
	Promised  int64
	Limit     int64 // to promise in all
	Unwritten int64 // promised, and not yet taken from the disk
	Spare     int64 // taken from the disk, and not promised
	Free      int64 // to promise still, as Available
}

// Uses measures all backends, by name. One that cannot be measured is left out; its promises count as not
// written.
func (l *Ledger) Uses() ([]Use, error) {
	l.promising.Lock()
	defer l.promising.Unlock()

	disk, err := l.cfg.Disk.Free()
	if err != nil {
		return nil, err
	}

	var all []Use
	total := int64(0)
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Backends)) {
		promised := l.promised(name)
		total += promised.Bytes
		capacity, err := l.cfg.Backends[name].Capacity(promised)
		if err != nil {
			disk -= promised.Bytes
			continue
		}

		disk -= capacity.Unwritten
		all = append(all, Use{
			Backend:   name,
			Volumes:   promised.Count,
			Promised:  promised.Bytes,
			Limit:     capacity.Limit,
			Unwritten: capacity.Unwritten,
			Spare:     capacity.Spare,
		})
	}

	for i := range all {
		free := min(all[i].Limit-all[i].Promised, disk+all[i].Spare)
		if l.cfg.Most > 0 {
			free = min(free, l.cfg.Most-total)
		}
		all[i].Free = max(free, 0)
	}
	return all, nil
}
