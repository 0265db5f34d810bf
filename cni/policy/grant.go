package policy

import "slices"

// grantAll grants the profiles what their policies allow. It reports false when that is too much.
func (t *tenant) grantAll() bool {
	for _, p := range t.profiles {
		wants, ok := t.collect(p)
		if !ok {
			return false
		}
		allowed, ok := t.spread(wants)
		if !ok {
			return false
		}

		p.granted = t.describe(p.direction, allowed)
		if !t.count(p.granted) {
			t.refuseAll(tooMany)
			return true
		}
	}
	return true
}

// want is whom the rules of a profile are for, and the name of a port that they have for these; it has none
// for ports by number.
type want struct {
	target *target
	name   NamedPort
}

// collect returns what the rules of a profile allow: the same target once, whatever rules are for it. A Span
// of no protocol is everything. It reports false when that is too much.
func (t *tenant) collect(p *profile) (wants map[want][]Span, ok bool) {
	wants = map[want][]Span{}
	own := numbersOf(p.pods[0].Ports)
	for _, policy := range p.policies {
		if policy.Refused != "" || t.refused[policy] != "" {
			continue
		}

		for i := range policy.Rules[p.direction] {
			r := &policy.Rules[p.direction][i]
			at := t.places[r]
			if !t.afford((1 + len(r.Ports)) * (1 + len(at.targets) + len(at.pods))) {
				return nil, false
			}

			spans := spansOf(r, p.direction, own)
			for _, x := range at.targets {
				wants[want{target: x}] = append(wants[want{target: x}], spans...)
			}
			for _, port := range r.Ports {
				for _, x := range at.pods {
					if name := port.named(); name.Name != "" {
						wants[want{x, name}] = nil
					}
				}
			}
		}
	}
	return wants, true
}

// spansOf returns the ports of a rule by their numbers. Those that egress rules have by name depend on the
// other end, and are none of them.
func spansOf(r *Rule, d Direction, own map[NamedPort][]uint16) (all []Span) {
	if len(r.Ports) == 0 {
		return []Span{{}}
	}
	for _, port := range r.Ports {
		switch {
		case port.Name == "":
			all = append(all, Span{port.Protocol, port.First, port.Last})
		case d == Ingress:
			for _, n := range own[port.named()] {
				all = append(all, Span{port.Protocol, n, n})
			}
		}
	}
	return all
}

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

// spread says of classes what is wanted for targets. It reports false when that is too much.
func (t *tenant) spread(wants map[want][]Span) (allowed map[uint32]*allowance, ok bool) {
	allowed = map[uint32]*allowance{}
	for w, spans := range wants {
		if spans = join(spans); slices.Contains(spans, Span{}) {
			spans = spans[:1]
		}
		having := t.classes.named[w.name]
		if !t.afford(len(w.target.classes)*len(spans) + len(having)) {
			return nil, false
		}

		if len(spans) > 0 {
			for _, class := range w.target.classes {
				allow(allowed, class, spans...)
			}
		}
		for class, numbers := range having {
			for _, n := range numbers {
				if w.target.has(class) {
					allow(allowed, class, Span{w.name.Protocol, n, n})
				}
			}
		}
	}

	effort := 0
	for class := range allowed {
		effort += len(t.classes.members[class]) + len(t.pieces[class])
	}
	return allowed, t.afford(effort)
}

// allow adds spans to what is allowed with a class.
func allow(allowed map[uint32]*allowance, class uint32, spans ...Span) {
	a := allowed[class]
	if a == nil {
		a = &allowance{}
		allowed[class] = a
	}
	if spans[0] == (Span{}) {
		a.all = true
	} else {
		a.spans = append(a.spans, spans...)
	}
}

// describe says of addresses what was found for their classes.
func (t *tenant) describe(d Direction, allowed map[uint32]*allowance) *Profile {
	p := empty(d)
	if a := allowed[anyClass]; a != nil {
		p.Any = a.ports()
	}
	if p.Any == AllTraffic {
		return p
	}

	var within []Interval
	for class, a := range allowed {
		granted := a.ports()
		for _, member := range t.classes.members[class] {
			p.Peers[member] = granted
		}
		for _, x := range t.pieces[class] {
			within = append(within, Interval{First: x.first, Last: x.last, Ports: granted})
		}
	}

	slices.SortFunc(within, func(a, b Interval) int { return a.First.Compare(b.First) })
	for _, next := range within {
		last := len(p.Blocks) - 1
		if last >= 0 && p.Blocks[last].Ports == next.Ports && p.Blocks[last].Last.Next() == next.First {
			p.Blocks[last].Last = next.Last
			continue
		}
		p.Blocks = append(p.Blocks, next)
	}
	return p
}

// numbersOf returns the numbers of ports by their names.
func numbersOf(ports []NamedPort) map[NamedPort][]uint16 {
	all := map[NamedPort][]uint16{}
	for _, port := range ports {
		all[port.unnumbered()] = append(all[port.unnumbered()], port.Number)
	}
	return all
}

// has reports whether a target's addresses have a class.
func (x *target) has(class uint32) bool {
	if x.any {
		return true
	}
	_, found := slices.BinarySearch(x.classes, class)
	return found
}
