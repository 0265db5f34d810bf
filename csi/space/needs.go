package space

import "slices"

// Need is what has to be there for a volume: bytes of its own, and what it keeps of others, by ID.
type Need struct {
	Backend string
	Bytes   int64
	Keeps   map[string]int64
}

// Needs are those of all volumes. What is promised for one is what it needs of its own and what its copies
// keep. Each copy keeps all that its owner held when it was made, what older copies keep included: so several
// keep as much as the one that keeps most, and that whether or not the owner is still there.
type Needs struct {
	needs map[string]Need             // by ID
	keeps map[string]map[string]int64 // by owner and copy: bytes
}

// NewNeeds returns those of no volume.
func NewNeeds() *Needs {
	return &Needs{needs: map[string]Need{}, keeps: map[string]map[string]int64{}}
}

// Set says what a volume needs now. It returns the IDs of those whose promise may be another one.
func (n *Needs) Set(id string, need Need) (changed []string) {
	changed = n.Remove(id)
	n.needs[id] = need
	for owner, bytes := range need.Keeps {
		if n.keeps[owner] == nil {
			n.keeps[owner] = map[string]int64{}
		}
		n.keeps[owner][id] = bytes
		changed = append(changed, owner)
	}
	return changed
}

// Remove says that a volume needs nothing any more; see Set.
func (n *Needs) Remove(id string) (changed []string) {
	changed = []string{id}
	for owner := range n.needs[id].Keeps {
		changed = append(changed, owner)
		delete(n.keeps[owner], id)
		if len(n.keeps[owner]) == 0 {
			delete(n.keeps, owner)
		}
	}
	delete(n.needs, id)
	return changed
}

// Of returns what is promised for a volume, if anything is.
func (n *Needs) Of(id string) (promise Promise, ok bool) {
	need, ok := n.needs[id]
	promise = Promise{ID: id, Backend: need.Backend, Bytes: need.Bytes}

	var most int64
	for by, bytes := range n.keeps[id] {
		most = max(most, bytes)
		promise.Backend = n.needs[by].Backend
	}
	promise.Bytes += most
	return promise, ok || len(n.keeps[id]) > 0
}

// With returns what would be promised if volumes needed that, each what is at the same place in the other
// list, as far as it differs; first for the first of them.
func (n *Needs) With(ids []string, needs []Need) []Promise {
	var changed []string
	before := map[string]Need{}
	for i, id := range ids {
		if need, known := n.needs[id]; known {
			before[id] = need
		}
		changed = append(changed, n.Set(id, needs[i])...)
	}

	var all []Promise
	for i, id := range changed {
		if promise, ok := n.Of(id); ok && !slices.Contains(changed[:i], id) {
			all = append(all, promise)
		}
	}

	for _, id := range ids {
		if need, known := before[id]; known {
			n.Set(id, need)
		} else {
			n.Remove(id)
		}
	}
	return all
}
