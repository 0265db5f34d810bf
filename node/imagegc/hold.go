package imagegc

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// holds are the images that pods have been given and may not use yet, and those that are just being removed.
// Of the two, whichever comes first stands: no image goes between its pull and the start of its container.
type holds struct {
	// alive reports whether the node still has a pod that has not ended.
	alive func(pod types.UID) bool

	// mu guards what follows.
	mu       sync.Mutex
	held     map[string]map[types.UID]bool // by the ID of the image
	removing map[string]chan struct{}      // closed when the removal has ended
	known    map[string]bool               // the images that are on the node; nil before the first look
}

func newHolds(alive func(types.UID) bool) *holds {
	return &holds{
		alive:    alive,
		held:     map[string]map[types.UID]bool{},
		removing: map[string]chan struct{}{},
	}
}

// hold keeps an image for a pod until that has ended. isNew means that the image was not on the node before.
// If the image is just being removed it is not held, and the channel is closed when the removal has ended.
func (h *holds) hold(id string, pod types.UID) (removed <-chan struct{}, isNew bool) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if removed := h.removing[id]; removed != nil {
		return removed, false
	}

	if h.held[id] == nil {
		h.held[id] = map[types.UID]bool{}
	}

	h.held[id][pod] = true

	isNew = h.known != nil && !h.known[id]
	if isNew {
		h.known[id] = true
	}

	return nil, isNew
}

// listed says which images are on the node.
func (h *holds) listed(ids map[string]bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known = ids
}

// current returns the images that are held, and lets go of those whose pods have ended.
func (h *holds) current() map[string]bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	out := map[string]bool{}
	for id := range h.held {
		if h.isHeld(id) {
			out[id] = true
		}
	}

	return out
}

// isHeld reports whether a pod that has not ended holds the image. The caller has the lock.
func (h *holds) isHeld(id string) bool {
	for pod := range h.held[id] {
		if !h.alive(pod) {
			delete(h.held[id], pod)
		}
	}
	if len(h.held[id]) == 0 {
		delete(h.held, id)
	}
	return h.held[id] != nil
}

// remove removes an image that nobody holds. It reports whether it was removed.
func (h *holds) remove(id string, do func() error) (done bool, err error) {
	if !h.beginRemoval(id) {
		return false, nil
	}
	defer h.endRemoval(id)
	return true, do()
}

func (h *holds) beginRemoval(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.isHeld(id) {
		return false
	}
	h.removing[id] = make(chan struct{})
	return true
}

func (h *holds) endRemoval(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.removing[id])
	delete(h.removing, id)
	delete(h.known, id)
}
