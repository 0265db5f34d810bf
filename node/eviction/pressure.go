package eviction

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
)

// Pressures are what the node is short of, as the last look has found it. The zero value is of a node that is
// short of nothing. It is safe for concurrent use.
type Pressures struct {
	// mu guards what follows.
	mu      sync.Mutex
	now     []v1.NodeConditionType
	changed func()
}

// Now returns the conditions that the node has, sorted. The caller must not change them.
func (p *Pressures) Now() []v1.NodeConditionType {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// Follow has a function called when the conditions change. It must not block.
func (p *Pressures) Follow(changed func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.changed = changed
}

// set sets the conditions that the node has from now on.
func (p *Pressures) set(now []v1.NodeConditionType) {
	p.mu.Lock()
	same := slices.Equal(p.now, now)
	p.now = now
	changed := p.changed
	p.mu.Unlock()

	if !same && changed != nil {
		changed()
	}
}
