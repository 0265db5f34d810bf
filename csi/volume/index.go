package volume

import (
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/trivet-node/trivet/csi/space"
)

// index is what is known of all volumes, in memory. Entering a record enters what is promised for it into the
// ledger. It is safe for concurrent use.
type index struct {
	ledger *space.Ledger

	// mu guards what follows; never held during I/O.
	mu      sync.Mutex
	records map[string]*packed
	entered uint64   // how many records were ever put
	ids     []string // of records, sorted
	needs   *space.Needs
	holds   map[string]string // by ID: what uses the volume
}

func newIndex(ledger *space.Ledger) *index {
	return &index{
		ledger:  ledger,
		records: map[string]*packed{},
		needs:   space.NewNeeds(),
		holds:   map[string]string{},
	}
}

func (x *index) get(id string) (record, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p, ok := x.records[id]
	return p.record(), ok
}

// put enters a record. The bytes of a destroyed volume are free again.
func (x *index) put(id string, r record) {
	x.mu.Lock()
	defer x.mu.Unlock()

	if i, found := slices.BinarySearch(x.ids, id); !found {
		x.ids = slices.Insert(x.ids, i, id)
	}

	x.entered++
	r.entry = x.entered
	x.records[id] = pack(r)

	if r.destroyed() {
		x.account(x.needs.Remove(id))
	} else {
		x.account(x.needs.Set(id, r.Spec.need()))
	}
}

// entries returns how many records were ever put.
func (x *index) entries() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.entered
}

// damage notes in a record why it cannot be used, or not be taken away.
func (x *index) damage(id string, why error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, ok := x.records[id]; ok {
		p.damage = why
	}
}

// miss notes in a record what a look has seen to be wrong with its content.
func (x *index) miss(id string, why error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, ok := x.records[id]; ok {
		p.damage = why
		p.missed = true
	}
}

// account enters promises into the ledger as they are now. mu is held.
func (x *index) account(ids []string) {
	for _, id := range ids {
		if promise, ok := x.needs.Of(id); ok {
			x.ledger.Record(promise)
		} else {
			x.ledger.Release(id)
		}
	}
}

// promise makes the promises for records that are about to be put, or returns a *space.Shortage.
func (x *index) promise(records ...record) error {
	var ids []string
	var needs []space.Need
	for _, r := range records {
		ids = append(ids, r.Spec.ID)
		needs = append(needs, r.Spec.need())
	}

	x.mu.Lock()
	promises := x.needs.With(ids, needs)
	x.mu.Unlock()
	return x.ledger.Promise(promises...)
}

func (x *index) drop(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i, found := slices.BinarySearch(x.ids, id); found {
		x.ids = slices.Delete(x.ids, i, i+1)
	}
	delete(x.records, id)
	x.account(x.needs.Remove(id))
}

// counts returns how many there are of what, by backend.
func (x *index) counts() map[string]Counts {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := map[string]Counts{}
	for _, p := range x.records {
		shared := p.common.Value()
		c := all[shared.backend]
		switch {
		case shared.phase != ready && p.damage != nil:
			c.Stuck++
		case shared.phase == ready && p.damage != nil:
			c.Damaged++
		}
		if shared.phase == ready && shared.snapshot {
			c.Snapshots++
			for _, bytes := range p.keeps {
				c.Kept += bytes
			}
		}
		all[shared.backend] = c
	}
	return all
}

// ill returns the records of ready volumes that cannot be used, in the order of their IDs.
func (x *index) ill() []record {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ill []record
	for _, id := range x.ids {
		p := x.records[id]
		if p.damage != nil && p.common.Value().phase == ready {
			ill = append(ill, p.record())
		}
	}
	return ill
}

// pageOf returns up to limit of what f makes of the records of ready volumes, in the order of their IDs,
// beginning after the ID given (limit 0: all of them), in a list that may have been used before. f says what
// is in the page, and does not use the index. A record that names another volume is in none.
func pageOf[T any](x *index, page []T, after string, limit int, f func(record) (T, bool)) []T {
	x.mu.Lock()
	defer x.mu.Unlock()

	i, found := slices.BinarySearch(x.ids, after)
	if found {
		i++
	}

	most := len(x.ids) - i
	if limit > 0 {
		most = min(most, limit)
	}
	page = slices.Grow(page[:0], most)
	for ; i < len(x.ids) && (limit == 0 || len(page) < limit); i++ {
		r := x.records[x.ids[i]].record()
		if r.Phase != ready || r.Spec.ID != x.ids[i] {
			continue
		}
		if one, ok := f(r); ok {
			page = append(page, one)
		}
	}

	return page
}

// selected returns the IDs of the records that the condition holds for.
func (x *index) selected(condition func(record) bool) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for id, p := range x.records {
		if condition(p.record()) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (x *index) hold(id, where string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.holds[id] = where
}

func (x *index) release(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.holds, id)
}

func (x *index) holder(id string) (where string, held bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	where, held = x.holds[id]
	return where, held
}

// held returns the records of all volumes in use.
func (x *index) held() []record {
	x.mu.Lock()
	defer x.mu.Unlock()
	var held []record
	for id := range x.holds {
		if p, ok := x.records[id]; ok {
			held = append(held, p.record())
		}
	}
	return held
}

// isIdle reports whether no volume of the backend is in use.
func (x *index) isIdle(backend string) bool {
	return !slices.ContainsFunc(x.held(), func(r record) bool { return r.Spec.Backend == backend })
}

// packed is a record in memory, where there may be thousands: what many of them have in common is there once.
type packed struct {
	common unique.Handle[common]

	id, name         string
	size             int64
	source, imported string
	keeps            map[string]int64
	token            uint64
	created          time.Time
	damage           error
	missed           bool
	entry            uint64
}

// common is what records of different volumes may have in common.
type common struct {
	version                          int
	phase                            phase
	backend, fsType                  string
	access                           Access
	encryption                       Encryption
	limits                           Limits
	noCOW, reserve, pooled, snapshot bool
	pool                             string
}

func pack(r record) *packed {
	shared := common{
		version:    r.Version,
		phase:      r.Phase,
		backend:    r.Spec.Backend,
		fsType:     r.Spec.FSType,
		access:     r.Spec.Access,
		encryption: r.Spec.Encryption,
		limits:     r.Spec.Limits,
		noCOW:      r.Spec.NoCOW,
		reserve:    r.Spec.Reserve,
		pooled:     r.Spec.Pooled,
		snapshot:   r.Spec.Snapshot,
		pool:       r.Pool,
	}

	return &packed{
		common:   unique.Make(shared),
		id:       r.Spec.ID,
		name:     r.Spec.Name,
		size:     r.Spec.Size,
		source:   r.Spec.Source,
		imported: r.Spec.Imported,
		keeps:    r.Spec.Keeps,
		token:    r.Token,
		created:  r.Created,
		damage:   r.damage,
		missed:   r.missed,
		entry:    r.entry,
	}
}

// record returns what was packed; nothing for nil.
func (p *packed) record() record {
	if p == nil {
		return record{}
	}
	c := p.common.Value()
	spec := Spec{
		ID:         p.id,
		Name:       p.name,
		Size:       p.size,
		Backend:    c.backend,
		Access:     c.access,
		FSType:     c.fsType,
		NoCOW:      c.noCOW,
		Encryption: c.encryption,
		Reserve:    c.reserve,
		Limits:     c.limits,
		Pooled:     c.pooled,
		Source:     p.source,
		Imported:   p.imported,
		Snapshot:   c.snapshot,
		Keeps:      p.keeps,
	}

	return record{
		Version: c.version,
		Phase:   c.phase,
		Spec:    spec,
		Origin:  Origin{Token: p.token, Pool: c.pool},
		Created: p.created,
		damage:  p.damage,
		missed:  p.missed,
		entry:   p.entry,
	}
}
