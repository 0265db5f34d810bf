package memoryalarm

import "strconv"

// fine is how near a usage must be to its limit, in bytes, to be aimed at as it is.
const fine = 64 << 20

// Aim has the kernel report when usages come to their limits, and before that when they are half-way there:
// the page cache that can be given back, of which a limit is made up as well, changes meanwhile. Aims of
// earlier calls end. Kernels with cgroup v2 have no such thresholds.
func (a *Alarm) Aim(aims []Aim) {
	if a.host.V2 {
		return
	}

	wanted := map[string]bool{}
	for _, aim := range aims {
		usage, near := aim.next()
		wanted[aim.Group] = true

		old, known := a.aimed(aim.Group)
		if known && max(usage-old.usage, old.usage-usage) <= near {
			continue
		}

		fd, err := a.registered(aim.Group, "memory.usage_in_bytes", strconv.FormatInt(usage, 10))
		if err != nil {
			a.note(err)
			continue
		}

		a.replace(aim.Group, aimed{usage: usage, fd: fd})
	}

	a.end(wanted)
}

// next is the usage to aim at, and how far from it another one is as good.
func (m Aim) next() (usage, near int64) {
	left := m.Limit - m.Now
	if left <= fine {
		return m.Limit, fine / 64
	}
	return m.Now + left/2, left / 8
}

func (a *Alarm) aimed(group string) (aimed, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, known := a.aims[group]
	return old, known
}

// replace keeps an aim and ends the one before it: the kernel forgets a threshold when its descriptor is
// closed.
func (a *Alarm) replace(group string, next aimed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, known := a.aims[group]; known {
		a.drop(old.fd)
	}
	a.aims[group] = next
}

// end ends the aims that are not wanted any more.
func (a *Alarm) end(wanted map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for group, old := range a.aims {
		if !wanted[group] {
			a.drop(old.fd)
			delete(a.aims, group)
		}
	}
}
