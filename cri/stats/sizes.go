package stats

import (
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/rootfs"
)

// maxAge is how old the size of a writable layer may be. Kubelet asks every 10 s, and evicts by it.
const maxAge = 10 * time.Second

// sizes keeps the sizes of writable layers. To count one is to walk all files in it, for which only the first
// caller for a container waits. The others get the last size with its time, and start a new count if that is
// older than maxAge.
type sizes struct {
	count func(id string) (rootfs.Usage, error)
	now   func() time.Time

	mu   sync.Mutex // guards byID and what it holds
	byID map[string]*size
}

type size struct {
	usage    rootfs.Usage
	at       time.Time
	err      error
	counting bool

	// first is closed when there is a size.
	first chan struct{}
}

func newSizes(count func(id string) (rootfs.Usage, error), now func() time.Time) *sizes {
	return &sizes{count: count, now: now, byID: map[string]*size{}}
}

// of returns what a container wrote and when that was counted.
func (s *sizes) of(id string) (rootfs.Usage, time.Time, error) {
	entry := s.entry(id)
	<-entry.first
	s.mu.Lock()
	defer s.mu.Unlock()
	return entry.usage, entry.at, entry.err
}

// entry returns the container's size, which may not be there yet, and starts a count if it is too old.
func (s *sizes) entry(id string) *size {
	s.mu.Lock()
	defer s.mu.Unlock()

	entry := s.byID[id]
	if entry == nil {
		entry = &size{first: make(chan struct{})}
		s.byID[id] = entry
	}

	if !entry.counting && s.now().Sub(entry.at) > maxAge {
		entry.counting = true
		go s.renew(id, entry)
	}

	return entry
}

func (s *sizes) renew(id string, entry *size) {
	usage, err := s.count(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry.at.IsZero() {
		close(entry.first)
	}
	entry.usage = usage
	entry.err = err
	entry.at = s.now()
	entry.counting = false
}

// keep forgets all but these containers.
func (s *sizes) keep(live map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.byID {
		if !live[id] {
			delete(s.byID, id)
		}
	}
}
