package volume

import (
	"time"
	"unique"
)

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
	return &packed{
		common: unique.Make(common{
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
		}),
		id:       r.Spec.ID,
		name:     r.Spec.Name,
		size:     r.Spec.Size,
		source:   r.Spec.Source,
		imported: r.Spec.Imported,
		keeps:    r.Spec.Keeps,
		token:    r.Token,
		created:  r.Created,
		damage:   r.damage,
		entry:    r.entry,
	}
}

// record returns what was packed; nothing for nil.
func (p *packed) record() record {
	if p == nil {
		return record{}
	}
	c := p.common.Value()
	return record{
		Version: c.version,
		Phase:   c.phase,
		Spec: Spec{
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
		},
		Origin:  Origin{Token: p.token, Pool: c.pool},
		Created: p.created,
		damage:  p.damage,
		entry:   p.entry,
	}
}
