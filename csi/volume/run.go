package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

const (
	// reapPause gathers deletions: a commit of a backend delays those who create and write at that moment.
	reapPause = 2 * time.Second

	// enforcePeriod is for how long a pod can exceed the size of its volume, if it finds a way to.
	enforcePeriod = time.Second

	// checkPeriod is how long trouble with a backend may stay unnoticed, and how long it may last after its
	// cause is gone.
	checkPeriod = 5 * time.Second

	// defaultLookPeriod is how long it may stay unnoticed that the content of a volume is gone, or back.
	defaultLookPeriod = 30 * time.Second

	// lookAtOnce is how many volumes are compared at a time with what a backend has.
	lookAtOnce = 256
)

// upkeep is what a Store does by itself.
type upkeep struct {
	*catalog
	destroyed  chan struct{} // holds a value when records of destroyed volumes are left
	lookPeriod time.Duration
}

// wake has the records of destroyed volumes removed soon.
func (u *upkeep) wake() {
	select {
	case u.destroyed <- struct{}{}:
	default:
	}
}

func (u *upkeep) run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()

	group.Go(func() {
		for range retry.Every(ctx, enforcePeriod) {
			u.enforce()
		}
	})

	group.Go(func() {
		for range retry.Every(ctx, checkPeriod) {
			u.check(ctx)
		}
	})

	group.Go(func() {
		// All volumes were looked at one by one just now.
		for retry.Sleep(ctx, u.lookPeriod) == nil {
			u.look(ctx)
		}
	})

	for _, backend := range u.backends.byName {
		if keeper, ok := backend.(Keeper); ok {
			group.Go(func() { keeper.Keep(ctx) })
		}
	}

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-u.destroyed:
			_ = retry.Sleep(ctx, reapPause)
		}

		u.reap(context.WithoutCancel(ctx))
	}

	// What was destroyed during the last pass.
	u.reap(context.WithoutCancel(ctx))
}

// reap removes the records of all destroyed volumes, after one commit for as many as there are.
func (u *upkeep) reap(ctx context.Context) {
	for name, backend := range u.backends.byName {
		before := u.index.entries()
		ids := u.index.selected(func(r record) bool { return r.Spec.Backend == name && r.destroyed() })
		if len(ids) == 0 || backend.Commit() != nil {
			// the records stay; the next deletion or start tries again
			continue
		}

		// Side by side they share their syncs.
		inParallel(ids, func(id string) { u.forget(ctx, id, before) })
	}
}

// forget removes the record of a destroyed volume if it is one of the first so many that were entered. A
// later one is of a volume of the same name that was created meanwhile: if that is destroyed by now, too, it
// takes another commit.
func (u *upkeep) forget(ctx context.Context, id string, first uint64) {
	unlock, err := u.locks.Lock(ctx, id)
	if err != nil {
		return
	}
	defer unlock()

	r, ok := u.index.get(id)
	if !ok || !r.destroyed() || r.entry > first {
		return
	}
	if u.records.Delete(id) == nil {
		u.index.drop(id)
	}
}

// enforce looks at all volumes in use. One that is being worked on, and one where it fails, are looked at
// again the next time.
func (u *upkeep) enforce() {
	for _, r := range u.index.held() {
		enforcer, ok := u.backends.byName[r.Spec.Backend].(Enforcer)
		if !ok {
			continue
		}

		unlock, free := u.locks.TryLock(r.Spec.ID)
		if !free {
			continue
		}
		if r, err := u.find(r.Spec.ID); err == nil && r.damage == nil {
			_ = enforcer.Enforce(r.Spec)
		}

		unlock()
	}
}

// check looks after what holds the volumes. When a backend works again, so do its volumes. One that cannot
// fail as a whole may have failed at the start all the same, and is tried again.
func (u *upkeep) check(ctx context.Context) {
	for name, backend := range u.backends.byName {
		var err error
		if checker, ok := backend.(Checker); ok {
			err = checker.Check(u.index.isIdle(name))
		}
		if same(u.health.checked(name), err) {
			if err == nil {
				u.finish(ctx, name)
			}
			continue
		}
		if err == nil {
			err = u.recoverDamaged(ctx, name, func(r record) bool { return r.damage != nil })
		}

		u.health.set(name, err)
		u.changed()
	}
}

// finish takes away what failed creations have left in a backend that works. What fails is tried again with
// the next check.
func (u *upkeep) finish(ctx context.Context, backend string) {
	unfinished := func(r record) bool { return r.Spec.Backend == backend && r.unfinished() }
	if len(u.index.selected(unfinished)) > 0 && u.recoverDamaged(ctx, backend, record.unfinished) == nil {
		u.changed()
	}
}

// recoverDamaged tries the volumes of one backend again that could not be used, or not be taken away.
func (u *upkeep) recoverDamaged(ctx context.Context, backend string, which func(record) bool) error {
	damaged := func(r record) bool { return r.Spec.Backend == backend && which(r) }
	inParallel(u.index.selected(damaged), func(id string) {
		unlock, err := u.lock(ctx, id)
		if err != nil {
			return
		}
		defer unlock()

		if r, ok := u.index.get(id); ok && damaged(r) && !u.isMissing(r) {
			u.index.put(id, recoverOne(u.catalog, id, r))
		}
	})

	err := u.backends.byName[backend].Commit()
	u.reap(ctx)
	return err
}

// isMissing reports whether content that was missed is still not known to be there. Its backend would take it
// for what a power loss took, and make an empty volume in its place.
func (u *upkeep) isMissing(r record) bool {
	if r.Phase != ready || !r.missed {
		return false
	}
	_, err := u.backends.byName[r.Spec.Backend].Empty(r.Spec.ID)
	return err != nil
}

// look notes which volumes have lost their content while the driver runs, and brings back those that have it
// again. Of a backend that does not work check says why, of one that cannot be looked at nevertheless this.
func (u *upkeep) look(ctx context.Context) {
	changed := false
	for name, backend := range u.backends.byName {
		inspector, ok := backend.(Inspector)
		if !ok {
			continue
		}

		before := u.index.entries()
		seen, err := inspector.Inspect()
		if errors.Is(err, ErrUnavailable) || errors.Is(err, ErrDamaged) {
			continue
		}
		if err != nil {
			u.health.wear(name, fmt.Errorf("its volumes cannot be looked at: %w", err))
			continue
		}
		u.health.wear(name, seen.Wear)
		changed = u.compare(ctx, name, seen, before) || changed
	}
	if changed {
		u.changed()
	}
}

// compare compares what is known of a backend's volumes with what was seen of them, after so many records
// were put.
func (u *upkeep) compare(
	ctx context.Context,
	backend string,
	seen Inspection,
	before uint64,
) (changed bool) {
	its := func(r record) (record, bool) { return r, r.Spec.Backend == backend }
	var healed []string
	for page := pageOf(u.index, nil, "", lookAtOnce, its); len(page) > 0 && ctx.Err() == nil; {
		for _, r := range page {
			why := seen.Of(r.Spec)
			switch {
			case seen.Pool != "" && r.Pool != "" && r.Pool != seen.Pool:
				// Its content is where nobody has looked.
			case why != nil && r.isNews(why):
				changed = u.miss(r.Spec.ID, before, why) || changed
			case why == nil && r.damage != nil && !isComing(seen, r):
				healed = append(healed, r.Spec.ID)
			}
		}
		page = pageOf(u.index, page, page[len(page)-1].Spec.ID, lookAtOnce, its)
	}

	var back atomic.Bool
	inParallel(healed, func(id string) {
		if u.retry(id) {
			back.Store(true)
		}
	})
	return changed || back.Load()
}

// isComing reports whether content that was lost is back in part. Recover would take that for a growth that
// was cut short.
func isComing(seen Inspection, r record) bool {
	return (r.missed || errors.Is(r.damage, ErrLost)) && seen.Part != nil && seen.Part(r.Spec)
}

// miss notes what is wrong with the content of a volume, if its record is one of the first so many that were
// put: a later one is of a volume that was made since it was looked. One that is being worked on is looked at
// again.
func (u *upkeep) miss(id string, first uint64, why error) (changed bool) {
	unlock, free := u.locks.TryLock(id)
	if !free {
		return false
	}
	defer unlock()

	r, ok := u.index.get(id)
	if !ok || r.Phase != ready || r.entry > first || !r.isNews(why) {
		return false
	}
	u.index.miss(id, why)
	return true
}

// retry tries a damaged volume again whose content is there.
func (u *upkeep) retry(id string) (changed bool) {
	unlock, free := u.locks.TryLock(id)
	if !free {
		return false
	}
	defer unlock()

	r, ok := u.index.get(id)
	if !ok || r.Phase != ready || r.damage == nil {
		return false
	}
	now := recoverOne(u.catalog, id, r)
	if same(now.damage, r.damage) {
		return false
	}
	u.index.put(id, now)
	return true
}

func same(a, b error) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Error() == b.Error()
}

// health is what is wrong with backends. It is safe for concurrent use.
type health struct {
	// mu guards what follows.
	mu        sync.Mutex
	checks    map[string]error // what their checks have found
	wears     map[string]error // what their devices have failed at
	listeners []func(backend string, err error)
}

func newHealth() *health {
	return &health{checks: map[string]error{}, wears: map[string]error{}}
}

// of returns all that is wrong with a backend.
func (h *health) of(backend string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all(backend)
}

// all is of while mu is held.
func (h *health) all(backend string) error {
	check, wear := h.checks[backend], h.wears[backend]
	switch {
	case check == nil:
		return wear
	case wear == nil:
		return check
	}
	return fmt.Errorf("%w; %w", check, wear)
}

// checked returns what the last check of a backend has found.
func (h *health) checked(backend string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.checks[backend]
}

// set enters what a check has found.
func (h *health) set(backend string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks[backend] = err
	h.tell(backend)
}

// wear enters what a device has failed at.
func (h *health) wear(backend string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if same(h.wears[backend], err) {
		return
	}
	h.wears[backend] = err
	h.tell(backend)
}

// tell tells the listeners what is wrong with a backend. mu is held.
func (h *health) tell(backend string) {
	err := h.all(backend)
	for _, f := range h.listeners {
		f(backend, err)
	}
}

func (h *health) listen(f func(backend string, err error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = append(h.listeners, f)
	backends := slices.Concat(slices.Collect(maps.Keys(h.checks)), slices.Collect(maps.Keys(h.wears)))
	slices.Sort(backends)
	for _, backend := range slices.Compact(backends) {
		if err := h.all(backend); err != nil {
			f(backend, err)
		}
	}
}
