package btrfspool

import (
	"maps"
	"sync"
)

// A copy shares its blocks with what it is a copy of. Simple quotas go on charging them to the volume that
// has written them, its owner, as long as anybody has them: an owner that writes over what a snapshot has is
// charged for both. So its limit is raised by what copies keep of it, and those bytes are promised to the
// copies.

// copies are the volumes and snapshots that began as copies. It is safe for concurrent use.
type copies struct {
	// mu guards what follows.
	mu    sync.Mutex
	keeps map[string]map[string]int64 // by copy and owner: bytes
	kept  map[string]int64            // by owner: the sum
	stale map[string]bool             // owners whose limit may be higher than it should be
}

func newCopies() *copies {
	return &copies{
		keeps: map[string]map[string]int64{},
		kept:  map[string]int64{},
		stale: map[string]bool{},
	}
}

func (c *copies) add(id string, keeps map[string]int64) {
	c.remove(id)
	if len(keeps) == 0 {
		return
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.keeps[id] = keeps
	for owner, bytes := range keeps {
		c.kept[owner] += bytes
	}
}

func (c *copies) remove(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()

	for owner, bytes := range c.keeps[id] {
		c.stale[owner] = true
		c.kept[owner] -= bytes
		if c.kept[owner] <= 0 {
			delete(c.kept, owner)
		}
	}

	delete(c.keeps, id)
}

// of returns how many bytes copies keep of a volume.
func (c *copies) of(owner string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[owner]
}

// owners returns what copies keep, by owner.
func (c *copies) owners() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.kept)
}

// suspect has the limit of a volume looked at by the next call of isStale, and settled ends that.
func (c *copies) suspect(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale[owner] = true
}

func (c *copies) settled(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stale, owner)
}

func (c *copies) isStale(owner string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stale[owner]
}
