package volume

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Space is never overcommitted: every volume counts with its full size from the moment its creation begins
// until its deletion is done, written or not. What the backends' files do not yet occupy is subtracted from
// what the disk below has free.

// Available is how large the next volume of a request with these properties may be. A request that no
// backend can serve has 0; one whose mount options they all refuse is an error, as Create has it. Its Name
// and sizes do not matter.
func (s *Service) Available(r Request) (int64, error) {
	candidates := s.cfg.Default
	if r.Backend != "" {
		candidates = []string{r.Backend}
	}

	var refused error
	for _, name := range candidates {
		b := s.cfg.Backends[name]
		if b == nil {
			continue
		}

		spec := r.spec(name, granularity)
		if err := b.Complete(&spec, r.Options); err != nil {
			if plain := r.spec(name, granularity); b.Complete(&plain, nil) == nil {
				// for its mount options alone: no other node will take them
				refused = err
			}

			continue
		}

		s.ledger.Lock()
		free, err := s.available(name)
		s.ledger.Unlock()

		// the backend makes none that is so small
		if free < spec.Size {
			free = 0
		}

		return free / granularity * granularity, err
	}

	return 0, refused
}

// reserve takes the volume's size out of what is free, or says that there is not enough. The index entry
// itself is the reservation.
func (s *Service) reserve(r record) error {
	s.ledger.Lock()
	defer s.ledger.Unlock()

	free, err := s.available(r.Spec.Backend)
	if err != nil {
		return err
	}

	// what an earlier failure or a deletion left is made anew, perhaps with another size
	old, again := s.peek(r.Spec.ID)
	if again && old.counts() && old.Spec.Backend == r.Spec.Backend {
		free += old.Spec.Size
	}

	if r.Spec.Size > free {
		return fmt.Errorf("%w: volume %s needs %d bytes, backend %s has %d",
			ErrFull, r.Spec.ID, r.Spec.Size, r.Spec.Backend, max(free, 0))
	}

	s.put(r.Spec.ID, r)
	return nil
}

// available counts the bytes that a backend can still promise: never more than the disk has free at this
// moment, whoever else uses it. The ledger is held.
func (s *Service) available(backend string) (int64, error) {
	disk, err := s.freeOnDisk()
	if err != nil {
		return 0, err
	}

	free, total := int64(math.MaxInt64), int64(0)
	for name, b := range s.cfg.Backends {
		promised := s.promisedBy(name)
		total += promised.Bytes
		space, err := b.Space(promised)
		switch {
		case err != nil && name == backend:
			return 0, fmt.Errorf("space of backend %s: %w", name, err)
		case err != nil:
			// nobody can tell how much of it is written
			space.Unwritten = promised.Bytes
		}

		disk -= space.Unwritten
		if name == backend {
			free = space.Limit - promised.Bytes
		}
	}

	if s.cfg.Most > 0 {
		free = min(free, s.cfg.Most-total)
	}

	return min(free, disk), nil
}

// counts reports whether a volume's size is promised. That of a deleted one is free again, unless its
// deletion failed.
func (r record) counts() bool { return r.Phase != deleting || r.damage != nil }

// promisedBy tells what the backend has promised. The sums are kept as volumes come and go.
func (s *Service) promisedBy(backend string) Promised {
	s.mu.Lock()
	defer s.mu.Unlock()

	p := s.sums[backend]
	p.Specs = func() []Spec {
		s.mu.Lock()
		defer s.mu.Unlock()

		var specs []Spec
		for _, r := range s.index {
			if r.Spec.Backend == backend && r.counts() {
				specs = append(specs, r.Spec)
			}
		}

		return specs
	}

	return p
}

// account adds a record to the sums, or with sign -1 takes it out. mu is held.
func (s *Service) account(r record, sign int64) {
	if !r.counts() {
		return
	}
	sum := s.sums[r.Spec.Backend]
	sum.Bytes += sign * r.Spec.Size
	sum.Count += sign
	s.sums[r.Spec.Backend] = sum
}

// freeOnDisk is what the file system of the data directory has left, less the reserve.
func (s *Service) freeOnDisk() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.DataDir, &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", s.cfg.DataDir, err)
	}
	return int64(st.Bavail)*st.Bsize - s.cfg.Reserve, nil
}
