package volume

import (
	"slices"

	"github.com/trivet-node/trivet/csi/space"
)

// promises are the bytes that have to be there for volumes: the size of each, and what its copies keep of it.
// Each copy keeps all that its owner held when it was made, what older copies keep included: so several keep
// as much as the one that keeps most, and that whether or not the owner is still there.
type promises struct {
	specs map[string]Spec             // by ID
	keeps map[string]map[string]int64 // by owner and copy: bytes
}

func newPromises() *promises {
	return &promises{specs: map[string]Spec{}, keeps: map[string]map[string]int64{}}
}

// set makes promises for a volume as it is now. It returns the IDs of those whose promise is another one.
func (p *promises) set(id string, s Spec) (changed []string) {
	changed = p.remove(id)
	p.specs[id] = s
	for owner, bytes := range s.Keeps {
		if p.keeps[owner] == nil {
			p.keeps[owner] = map[string]int64{}
		}
		p.keeps[owner][id] = bytes
		changed = append(changed, owner)
	}
	return changed
}

// remove ends the promises for a volume; see set.
func (p *promises) remove(id string) (changed []string) {
	changed = []string{id}
	for owner := range p.specs[id].Keeps {
		changed = append(changed, owner)
		delete(p.keeps[owner], id)
		if len(p.keeps[owner]) == 0 {
			delete(p.keeps, owner)
		}
	}
	delete(p.specs, id)
	return changed
}

// of returns what is promised for a volume, if anything is.
func (p *promises) of(id string) (promise space.Promise, ok bool) {
	s, ok := p.specs[id]
	promise = space.Promise{ID: id, Backend: s.Backend, Bytes: s.ownBytes()}

	var most int64
	for copy, bytes := range p.keeps[id] {
		most = max(most, bytes)
		promise.Backend = p.specs[copy].Backend
	}
	promise.Bytes += most
	return promise, ok || len(p.keeps[id]) > 0
}

// with returns what would be promised if a volume were as the Spec says, as far as that differs; first for
// that volume.
func (p *promises) with(id string, s Spec) []space.Promise {
	before, known := p.specs[id]
	changed := p.set(id, s)

	var all []space.Promise
	for i, id := range changed {
		if promise, ok := p.of(id); ok && !slices.Contains(changed[:i], id) {
			all = append(all, promise)
		}
	}

	if known {
		p.set(id, before)
	} else {
		p.remove(id)
	}
	return all
}
