package policy

import (
	"maps"
	"net/netip"
	"slices"
)

// allowance is what a profile may have with one class.
type allowance struct {
	all   bool
	spans []Span
}

func (a *allowance) ports() Ports {
	if a.all {
		return AllTraffic
	}
	return portsOf(a.spans)
}

// grantAll adds what all policies allow to a state. A policy that exceeds a limit in one profile allows
// nothing in the others either: then all are granted again, without it.
func (w *work) grantAll(s *State, profiles []*profile, c classes, pieces []piece) {
	spent := maps.Clone(w.spent)
	for {
		refused := len(w.refused)
		w.elements = map[string]int{}
		for _, p := range profiles {
			s.Profiles[p.number] = w.grant(p, c, pieces)
		}
		if len(w.refused) == refused {
			return
		}
		w.spent = maps.Clone(spent)
	}
}

// grant returns what the policies of a profile allow.
func (w *work) grant(p *profile, c classes, pieces []piece) *Profile {
	allowed := map[uint32]*allowance{}
	for _, policy := range p.policies {
		if p.pods[0].Unknown || policy.Refused != "" || w.refused[policy] != "" {
			continue
		}

		// Of a policy that exceeds its limit nothing is granted, not what came before the limit.
		g := grants{
			work:    w,
			policy:  policy,
			profile: p,
			classes: c,
			pieces:  pieces,
		}
		if g.collect() {
			g.addTo(allowed)
		}
	}

	described := describe(p.direction, allowed, c, pieces)
	w.count(p.policies[0].Namespace, len(described.Peers)+len(described.Blocks))
	return described
}

// count counts elements for a namespace, and refuses its policies when there are too many.
func (w *work) count(namespace string, elements int) {
	w.elements[namespace] += elements
	if w.elements[namespace] <= maxElements {
		return
	}
	for _, p := range w.policies {
		if p.Namespace == namespace {
			w.refuse(p, "the policies of its namespace lead to too many addresses")
		}
	}
}

// describe says of addresses what was found for their classes.
func describe(d Direction, allowed map[uint32]*allowance, c classes, pieces []piece) *Profile {
	p := &Profile{Direction: d, Peers: map[netip.Addr]Ports{}}
	ports := map[uint32]Ports{}
	for class, a := range allowed {
		ports[class] = a.ports()
	}

	if p.Any = ports[anyClass]; p.Any == AllTraffic {
		return p
	}
	for class, members := range c.members {
		if granted := ports[class]; granted != "" {
			for _, a := range members {
				p.Peers[a] = granted
			}
		}
	}

	for _, piece := range pieces {
		granted := ports[piece.class]
		if granted == "" {
			continue
		}
		if last := len(p.Blocks) - 1; last >= 0 && p.Blocks[last].Ports == granted &&
			p.Blocks[last].Last.Next() == piece.first {
			p.Blocks[last].Last = piece.last
			continue
		}
		p.Blocks = append(p.Blocks, Interval{First: piece.first, Last: piece.last, Ports: granted})
	}

	return p
}

// grants are what one policy allows the pods of a profile.
type grants struct {
	*work
	policy  *Policy
	profile *profile
	classes classes
	pieces  []piece

	found []classSpan
}

// classSpan is a span with a class: of no protocol for everything.
type classSpan struct {
	class uint32
	Span
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
			g.add(classes, Span{})
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
		return []uint32{anyClass}, 0
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

func (g *grants) add(classes []uint32, s Span) {
	for _, class := range classes {
		g.found = append(g.found, classSpan{class, s})
	}
}

// addPort adds a port, which may be one that pods have by name: the selected ones, or those at the other end.
func (g *grants) addPort(at place, classes []uint32, port Port) {
	switch {
	case port.Name == "":
		g.add(classes, Span{port.Protocol, port.First, port.Last})

	case g.profile.direction == Ingress:
		for _, own := range g.profile.pods[0].Ports {
			if own.Name == port.Name && own.Protocol == port.Protocol {
				g.add(classes, Span{port.Protocol, own.Number, own.Number})
			}
		}

	default:
		numbers := g.classes.named[NamedPort{Name: port.Name, Protocol: port.Protocol}]
		for _, class := range g.podClasses(at, numbers) {
			for _, number := range numbers[class] {
				g.add([]uint32{class}, Span{port.Protocol, number, number})
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
		if f.Span == (Span{}) {
			a.all = true
		} else {
			a.spans = append(a.spans, f.Span)
		}
	}
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
