// Package copies knows what volumes and snapshots that began as copies keep of others in a btrfs, and what is
// left of that when they are gone.
//
// A copy shares its blocks with what it is a copy of. Simple quotas go on charging them to the volume that
// has written them, its owner, as long as anybody has them: an owner that writes over what a snapshot has is
// charged for both. So its limit is raised by what copies keep of it, and those bytes are promised to the
// copies. Each keeps all that its owner was charged for when it was made, what others keep included: so the
// one that keeps most says by how much.
package copies

import (
	"maps"
	"slices"
	"sync"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// Copies are the volumes and snapshots that began as copies. It is safe for concurrent use.
type Copies struct {
	// mu guards what follows.
	mu    sync.Mutex
	keeps map[string]map[string]int64 // by owner and copy: bytes
	stale map[string]bool             // owners whose limit may not be what it should be

	// dying are deleted copies, by owner, that may not be freed yet.
	dying map[string][]btrfs.Subvolume
}

// New returns none.
func New() *Copies {
	return &Copies{
		keeps: map[string]map[string]int64{},
		stale: map[string]bool{},
		dying: map[string][]btrfs.Subvolume{},
	}
}

// Add says what a copy keeps, by owner.
func (c *Copies) Add(id string, keeps map[string]int64) {
	c.Remove(id, btrfs.Subvolume{})
	c.mu.Lock()
	defer c.mu.Unlock()
	for owner, bytes := range keeps {
		if c.keeps[owner] == nil {
			c.keeps[owner] = map[string]int64{}
		}
		c.keeps[owner][id] = bytes
		c.stale[owner] = true
	}
}

// Remove says that a copy was deleted, and which subvolume it was, if that is known. It returns the owners
// that it has kept blocks of, and how many bytes of each all copies kept until now.
func (c *Copies) Remove(id string, was btrfs.Subvolume) (keptUntilNow map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keptUntilNow = map[string]int64{}
	for owner, kept := range c.keeps {
		if _, ok := kept[id]; !ok {
			continue
		}

		keptUntilNow[owner] = most(kept)
		c.stale[owner] = true
		if was.ID != 0 {
			c.dying[owner] = append(c.dying[owner], was)
		}

		delete(kept, id)
		if len(kept) == 0 {
			delete(c.keeps, owner)
		}
	}
	return keptUntilNow
}

// Those returns the copies that keep blocks of a volume.
func (c *Copies) Those(owner string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.keeps[owner]))
}

// Of returns how many bytes copies keep of a volume.
func (c *Copies) Of(owner string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return most(c.keeps[owner])
}

func most(kept map[string]int64) int64 {
	var most int64
	for _, bytes := range kept {
		most = max(most, bytes)
	}
	return most
}

// Owners returns what copies keep, by owner.
func (c *Copies) Owners() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	owners := map[string]int64{}
	for owner, kept := range c.keeps {
		owners[owner] = most(kept)
	}
	return owners
}

// Stales returns the owners whose limit may not be what it should be.
func (c *Copies) Stales() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.stale))
}

// Suspect says that the limit of a volume may not be what it should be.
func (c *Copies) Suspect(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale[owner] = true
}

// Settled says that the limit of a volume is what it should be.
func (c *Copies) Settled(owner string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.stale, owner)
}

// IsStale reports whether the limit of a volume may not be what it should be.
func (c *Copies) IsStale(owner string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stale[owner]
}

// Freed drops the deleted copies of an owner that the kernel has freed, and reports whether those are all.
func (c *Copies) Freed(owner string, isFreed func(btrfs.Subvolume) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := slices.DeleteFunc(c.dying[owner], isFreed)
	if len(left) == 0 {
		delete(c.dying, owner)
		return true
	}
	c.dying[owner] = left
	return false
}
