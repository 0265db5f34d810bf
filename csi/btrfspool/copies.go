package btrfspool

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// A copy shares its blocks with what it is a copy of. Simple quotas go on charging them to the volume that has
// written them, its owner, as long as anybody has them: an owner that writes over what a snapshot has is
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

// limitOf is what the quota group of a volume may hold.
func (p *Pool) limitOf(fs *subvolumes, s volume.Spec) int64 {
	limit := limitOf(s.Size)
	if fs.quota == btrfs.SimpleQuota {
		limit += p.copies.of(s.ID)
	}
	return limit
}

// Copy makes a volume or snapshot with the content of another one, see volume.Copier.
func (p *Pool) Copy(s, source volume.Spec) (volume.Spec, volume.Origin, error) {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return s, volume.Origin{}, err
	}
	defer leave()

	sub, err := fs.snapshot(s, source)
	if err != nil {
		return s, volume.Origin{}, err
	}
	if s.Keeps, err = p.keepsOf(fs, source); err != nil {
		return s, volume.Origin{}, err
	}

	p.copies.add(s.ID, s.Keeps)
	if err := p.raise(fs, source); err != nil {
		return s, volume.Origin{}, err
	}
	if err := p.adopt(fs, s, sub); err != nil {
		return s, volume.Origin{}, err
	}

	return s, volume.Origin{Token: sub.Created, Pool: fs.info.UUID}, nil
}

// keepsOf returns what a copy that was just made of source keeps: all that the source has written and not
// freed by now, and what it kept itself.
func (p *Pool) keepsOf(fs *subvolumes, source volume.Spec) (map[string]int64, error) {
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
	keeps[source.ID] = used
	return keeps, nil
}

// raise gives the source of a copy room to write over what the copy has. A snapshot writes nothing.
func (p *Pool) raise(fs *subvolumes, source volume.Spec) error {
	if source.Snapshot || fs.quota != btrfs.SimpleQuota {
		return nil
	}
	sub, err := fs.inspect(source.ID)
	if err != nil {
		return err
	}
	if err := p.reserve(fs, source); err != nil {
		return err
	}
	return btrfs.Limit(fs.dir, sub, p.limitOf(fs, source))
}

// adopt makes a volume of a copy: it gets its limit, and an image its size.
func (p *Pool) adopt(fs *subvolumes, s volume.Spec, sub btrfs.Subvolume) error {
	if s.Snapshot {
		return nil
	}
	if err := p.reserve(fs, s); err != nil {
		return err
	}
	if err := btrfs.Limit(fs.dir, sub, p.limitOf(fs, s)); err != nil {
		return err
	}
	return p.stretch(s)
}

// lower takes from a volume what deleted copies kept of it, when the kernel has freed that.
func (p *Pool) lower(fs *subvolumes, s volume.Spec, sub btrfs.Subvolume) error {
	if !p.copies.isStale(s.ID) {
		return nil
	}

	limit := p.limitOf(fs, s)
	used, err := btrfs.Usage(fs.info, sub)
	if err != nil || used > limit {
		return err
	}

	if btrfs.LimitOf(fs.info, sub) > limit {
		if err := btrfs.Limit(fs.dir, sub, limit); err != nil {
			return err
		}
	}

	p.copies.settled(s.ID)
	p.keepReserved(fs, s)
	return nil
}

// keptOfDead returns what copies keep of volumes that are gone. It was promised to them.
func (p *Pool) keptOfDead(fs *subvolumes) (int64, error) {
	var sum int64
	for owner, bytes := range p.copies.owners() {
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
