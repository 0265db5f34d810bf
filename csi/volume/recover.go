package volume

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/trivet-node/trivet/internal/durable"
)

// Report is what Open found and put right.
type Report struct {
	Unreadable []durable.Unreadable // records that could not be read; set aside
	Unmade     []string             // IDs of volumes whose creation was cut short; removed
	Deleted    []string             // IDs of volumes whose deletion was cut short; removed
	Damaged    map[string]error     // by ID: volumes that cannot be used
	Trouble    map[string]error     // by name: backends that could not be looked through or committed

	// Strays are volumes without a record, "BACKEND ID". They are left alone: there may be data in them.
	Strays []string

	Recovered int // number of usable volumes
}

// add adds a volume that had the phase, with its record after the recovery.
func (r *Report) add(id string, had phase, after record) {
	switch {
	case after.damage != nil:
		r.Damaged[id] = after.damage
	case !after.destroyed():
		r.Recovered++
	case had == making:
		r.Unmade = append(r.Unmade, id)
	default:
		r.Deleted = append(r.Deleted, id)
	}
}

// parallelism is the number of volumes that are worked on side by side where there may be thousands, and each
// costs some waiting.
const parallelism = 16

func inParallel(ids []string, do func(id string)) {
	var group errgroup.Group
	group.SetLimit(parallelism)
	for _, id := range ids {
		group.Go(func() error {
			do(id)
			return nil
		})
	}
	_ = group.Wait()
}

// recoverAll brings back all recorded volumes, or finishes taking them away.
func recoverAll(c *catalog, loaded *Records) Report {
	report := Report{
		Unreadable: loaded.unreadable,
		Damaged:    map[string]error{},
		Trouble:    map[string]error{},
	}
	records := loaded.all

	// A backend that does not work as a whole says why; each of its volumes is damaged then.
	for name, backend := range c.backends.byName {
		if checker, ok := backend.(Checker); ok {
			if err := checker.Check(false); err != nil {
				report.Trouble[name] = err
			}
		}
	}

	for _, backend := range c.backends.byName {
		if surveyor, ok := backend.(Surveyor); ok {
			defer surveyor.Survey()()
		}
	}

	// mu guards report, which volumes that are recovered side by side add to.
	var mu sync.Mutex
	inParallel(slices.Sorted(maps.Keys(records)), func(id string) {
		r := recoverOne(c, id, slim(id, records[id]))
		c.index.put(id, r)

		mu.Lock()
		defer mu.Unlock()
		report.add(id, records[id].Phase, r)
	})

	clearStrays(c, &report)

	// What was recovered is recovered again by the next start if it cannot be committed.
	for name, backend := range c.backends.byName {
		if err := backend.Commit(); err != nil {
			report.Trouble[name] = err
		}
	}

	for name, err := range report.Trouble {
		c.health.set(name, err)
	}

	return report
}

// slim has all that keep a part of a record that was read share one string: its ID, which often is its name.
func slim(id string, r record) record {
	if r.Spec.ID == id {
		r.Spec.ID = id
	}
	if r.Spec.Name == id {
		r.Spec.Name = id
	}
	return r
}

// recoverOne brings one recorded volume back, or finishes taking it away, and returns the record that it has
// now.
func recoverOne(c *catalog, id string, r record) record {
	backend := c.backends.byName[r.Spec.Backend]
	r.damage = r.check(id)
	switch {
	case r.damage != nil:
	case backend == nil:
		r.damage = fmt.Errorf("%w: backend %q does not work on this node", ErrDamaged, r.Spec.Backend)
	case r.Phase == ready:
		return recoverReady(c, backend, r)
	default:
		if err := backend.Destroy(id); err != nil {
			r.damage = fmt.Errorf("finish %s: %w", r.Phase, err)
			break
		}

		// The record goes after the commit.
		r.Phase = deleting
	}

	return r
}

// recoverReady makes a ready volume usable, or notes in the record why it is not.
func recoverReady(c *catalog, backend Backend, r record) record {
	origin, err := backend.Recover(r.Spec, r.Origin)
	r.damage = err
	r.missed = r.missed && err != nil
	if err == nil && origin != r.Origin {
		// The record is of an earlier version. If it cannot be written, the next start does it.
		r.Origin = origin
		_ = c.records.Update(r.Spec.ID, r)
	}
	return r
}

// clearStrays removes what a power loss left of a creation that was never acknowledged. Data is never taken
// away because a record is missing, nor an empty volume because its record is torn.
func clearStrays(c *catalog, report *Report) {
	for name, backend := range c.backends.byName {
		ids, err := backend.List()
		if err != nil {
			report.Trouble[name] = fmt.Errorf("list volumes of backend %s: %w", name, err)
			continue
		}

		for _, id := range ids {
			if r, known := c.index.get(id); known && r.Spec.Backend == name {
				continue
			}
			if !removeStray(c, backend, id) {
				report.Strays = append(report.Strays, name+" "+id)
			}
		}
	}
}

// removeStray removes a volume without a record if it is certainly empty.
func removeStray(c *catalog, backend Backend, id string) bool {
	empty, err := backend.Empty(id)
	aside, asideErr := c.records.Quarantined(id)
	if errors.Join(err, asideErr) != nil || !empty || len(aside) > 0 {
		return false
	}
	return backend.Destroy(id) == nil
}
