package policy

import (
	"cmp"
	"maps"
	"slices"
)

// span is a range of ports of a protocol.
type span struct {
	protocol    uint8
	first, last uint16
}

// allowance is what a profile may have with one class.
type allowance struct {
	all   bool
	spans []span
}

// grantAll adds what all policies allow to a state. A policy that exceeds a limit in one profile allows nothing
// in the others either: then it begins anew, without it.
func (w *work) grantAll(s *State, profiles []*profile, c classes) {
	spent := maps.Clone(w.spent)
	for {
		refused := len(w.refused)
		s.Grants, s.Ranges = map[Grant]bool{}, map[Range]bool{}
		for _, p := range profiles {
			w.grant(s, p, c)
		}
		if len(w.refused) == refused {
			return
		}
		w.spent = maps.Clone(spent)
	}
}

// grant adds what the policies of a profile allow to a state.
func (w *work) grant(s *State, p *profile, c classes) {
	allowed := map[uint32]*allowance{}
	for _, policy := range p.policies {
		if p.pods[0].Unknown || policy.Refused != "" || w.refused[policy] != "" {
			continue
		}

		// Of a policy that exceeds its limit nothing is granted, not what came before the limit.
		g := grants{work: w, policy: policy, profile: p, classes: c, pieces: s.Blocks}
		if g.collect() {
			g.addTo(allowed)
		}
	}

	for _, class := range slices.Sorted(maps.Keys(allowed)) {
		allowed[class].write(s, p.number, class)
	}
}

// grants are what one policy allows the pods of a profile.
type grants struct {
	*work
	policy  *Policy
	profile *profile
	classes classes
	pieces  []Interval

	found []classSpan
}

// classSpan is a span with a class: of no protocol for everything.
type classSpan struct {
	class uint32
	span
}

// collect collects what all rules allow. It reports false when that is too much.
func (g *grants) collect() bool {
	rules := g.policy.Rules[g.profile.direction]
	for i := range rules {
		r := &rules[i]
		at := g.rim.places[r]
		classes, looked := g.classesOf(at)
		if !g.afford(g.policy, looked) {
			return false
		}

		if len(r.Ports) == 0 {
			g.add(classes, span{})
		}
		for _, port := range r.Ports {
			g.addPort(at, classes, port)
			if len(g.found) > maxPolicyGrants {
				g.refuse(g.policy, "its rules have too many combinations of peers and ports")
				return false
			}
		}
	}
	return g.afford(g.policy, len(g.found))
}

// classesOf returns the classes that a rule is for, and how much was looked at.
func (g *grants) classesOf(at place) (all []uint32, looked int) {
	if at.any {
		return []uint32{AnyClass}, 0
	}
	for _, group := range at.groups {
		all = append(all, g.classes.of(group)...)
		looked += len(group.addresses)
	}
	if at.block != nil {
		of, n := at.block.classesOf(g.pieces)
		all = append(all, of...)
		looked += n
	}
	slices.Sort(all)
	return slices.Compact(all), looked
}

func (g *grants) add(classes []uint32, s span) {
	for _, class := range classes {
		g.found = append(g.found, classSpan{class, s})
	}
}

// addPort adds a port, which may be one that pods have by name: the selected ones, or those at the other end.
func (g *grants) addPort(at place, classes []uint32, port Port) {
	switch {
	case port.Name == "":
		g.add(classes, span{port.Protocol, port.First, port.Last})

	case g.profile.direction == Ingress:
		for _, own := range g.profile.pods[0].Ports {
			if own.Name == port.Name && own.Protocol == port.Protocol {
				g.add(classes, span{port.Protocol, own.Number, own.Number})
			}
		}

	default:
		numbers := g.classes.named[NamedPort{Name: port.Name, Protocol: port.Protocol}]
		for _, class := range g.podClasses(at, numbers) {
			for _, number := range numbers[class] {
				g.add([]uint32{class}, span{port.Protocol, number, number})
			}
		}
	}
}

// podClasses returns the classes of pods that a rule is for, of those that have a port by name.
func (g *grants) podClasses(at place, having map[uint32][]uint16) (all []uint32) {
	if at.any {
		return slices.Sorted(maps.Keys(having))
	}
	for _, group := range at.groups {
		all = append(all, g.classes.of(group)...)
	}
	if at.inBlock != nil {
		all = append(all, g.classes.of(at.inBlock)...)
	}
	return all
}

func (g *grants) addTo(allowed map[uint32]*allowance) {
	for _, f := range g.found {
		a := allowed[f.class]
		if a == nil {
			a = &allowance{}
			allowed[f.class] = a
		}
		if f.span == (span{}) {
			a.all = true
		} else {
			a.spans = append(a.spans, f.span)
		}
	}
}

// write adds an allowance to a state: what is allowed at all makes single ports superfluous.
func (a *allowance) write(s *State, profile, class uint32) {
	if a.all {
		s.Grants[Grant{Profile: profile, Class: class}] = true
		return
	}
	for _, x := range joinSpans(a.spans) {
		if x.first == x.last {
			s.Grants[Grant{Profile: profile, Class: class, Protocol: x.protocol, Port: x.first}] = true
			continue
		}
		s.Ranges[Range{
			Profile:  profile,
			Class:    class,
			Protocol: x.protocol,
			First:    x.first,
			Last:     x.last,
		}] = true
	}
}

// joinSpans returns the same ports as disjoint spans that do not touch: the kernel refuses ranges that overlap.
func joinSpans(all []span) (out []span) {
	slices.SortFunc(all, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first))
	})
	for _, next := range all {
		if i := len(out) - 1; i >= 0 && out[i].protocol == next.protocol &&
			int(next.first) <= int(out[i].last)+1 {
			out[i].last = max(out[i].last, next.last)
			continue
		}
		out = append(out, next)
	}
	return out
}

// afford counts an effort for a policy, and reports whether its namespace may still have it.
func (w *work) afford(p *Policy, effort int) bool {
	if w.refused[p] != "" {
		return false
	}
	w.spent[p.Namespace] += effort
	if w.spent[p.Namespace] > maxEffort {
		w.refuse(p, "the policies of its namespace need too much")
		return false
	}
	return true
}

// refuse leaves out a policy's rules. The first reason counts.
func (w *work) refuse(p *Policy, why string) {
	if w.refused[p] == "" {
		w.refused[p] = why
	}
}
