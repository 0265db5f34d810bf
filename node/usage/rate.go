package usage

import "time"

// rates computes the mean use of processors between passes. It remembers the groups of the last pass only.
type rates map[string]reading

// reading is how much of a processor a group has used until a time, and what the mean was then.
type reading struct {
	at        time.Time
	used      time.Duration
	nanoCores uint64
}

// shortest is the time between two passes below which no new mean is computed: it would be noise.
const shortest = time.Second

// add puts the means into a new snapshot.
func (r *rates) add(s *Snapshot) {
	next := rates{}
	s.each(func(g *Group, born time.Time) {
		next[g.Path] = r.mean(g, born)
		g.NanoCores = next[g.Path].nanoCores
	})

	// Without the pods, what is known of them stays.
	if s.Err == nil || *r == nil {
		*r = next
	}
}

// mean returns the reading of a group, whose mean is that since the last reading, or since the group was
// made. The counter of another group with the same path begins again.
func (r rates) mean(g *Group, born time.Time) reading {
	last, known := r[g.Path]
	if !known || g.CPU < last.used {
		last = reading{at: born}
	}

	elapsed := g.Time.Sub(last.at)
	if known && elapsed < shortest {
		return last
	}

	out := reading{at: g.Time, used: g.CPU}
	if elapsed > 0 {
		out.nanoCores = uint64(float64(g.CPU-last.used) / elapsed.Seconds())
	}

	return out
}

// each calls do for all groups, each with the time since which it has counted.
func (s *Snapshot) each(do func(g *Group, born time.Time)) {
	call := func(g *Group, born time.Time) {
		if g != nil {
			do(g, born)
		}
	}

	call(s.Node, s.Boot)
	for _, g := range s.Tiers {
		call(g, s.Boot)
	}

	for _, g := range s.Daemons {
		call(g, s.Boot)
	}

	for _, p := range s.Pods {
		call(p.Group, p.Created)
		call(p.Sandbox, p.Created)
		for _, c := range p.Containers {
			call(c.Group, c.Created)
		}
	}
}
