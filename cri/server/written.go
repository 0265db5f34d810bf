package server

import (
	"sync"
	"time"

	"github.com/trivet-node/trivet/cri/rootfs"
)

// maxAge is how old the size of a writable layer may be that stats tell of. Kubelet asks every 10 s and
// evicts by what it hears.
const maxAge = 10 * time.Second

// written keeps the sizes of writable layers. To count one is to walk all files in it, which no caller of
// stats waits for but the first that asks about a container: the others get the last size with its time, and
// start a new count when that is older than maxAge.
type written struct {
	count func(id string) (rootfs.Usage, error)

	mu    sync.Mutex // guards all below
	sizes map[string]*size
}

type size struct {
	usage    rootfs.Usage
	at       time.Time
	err      error
	counting bool
	first    chan struct{} // closed when there is a size
}

func newWritten(count func(string) (rootfs.Usage, error)) *written {
	return &written{count: count, sizes: map[string]*size{}}
}

// of returns what a container wrote and when that was counted.
func (w *written) of(id string) (rootfs.Usage, time.Time, error) {
	w.mu.Lock()
	s := w.sizes[id]
	if s == nil {
		s = &size{first: make(chan struct{})}
		w.sizes[id] = s
	}

	if !s.counting && time.Since(s.at) > maxAge {
		s.counting = true
		go w.renew(id, s)
	}

	w.mu.Unlock()
	<-s.first
	w.mu.Lock()
	defer w.mu.Unlock()

	return s.usage, s.at, s.err
}

func (w *written) renew(id string, s *size) {
	usage, err := w.count(id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.at.IsZero() {
		close(s.first)
	}
	s.usage, s.err, s.at, s.counting = usage, err, time.Now(), false
}

// keep forgets all but these containers.
func (w *written) keep(live map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id := range w.sizes {
		if !live[id] {
			delete(w.sizes, id)
		}
	}
}
