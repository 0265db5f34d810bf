package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// anyClass is the class of any address. Those of pods' addresses begin at 1, and those of blocks follow.
const anyClass = 0

// classes are the addresses of pods, put together where no rule of a namespace tells them apart.
type classes struct {
	ofAddress map[netip.Addr]uint32
	members   map[uint32][]netip.Addr
	// named are the ports that classes have under a name.
	named map[NamedPort]map[uint32][]uint16
}

// kind is what tells classes apart.
type kind struct {
	mark  mark
	ports string
}

// locate puts the addresses that rules are for into classes. It reports false when that is too much.
func (t *tenant) locate() bool {
	t.classify()
	pieces := divide(t.order, uint32(len(t.classes.members)))
	for _, x := range pieces {
		t.pieces[x.class] = append(t.pieces[x.class], x)
	}

	for _, x := range t.order {
		effort := len(x.addresses)
		for _, p := range x.parts {
			effort += 1 + len(p.within(pieces))
		}
		if !t.afford(effort) {
			return false
		}
		x.locate(t.classes, pieces)
	}
	return true
}

// locate finds the classes of a target.
func (x *target) locate(c classes, pieces []piece) {
	for _, a := range x.addresses {
		x.classes = append(x.classes, c.ofAddress[a])
	}
	for _, p := range x.parts {
		for _, piece := range p.within(pieces) {
			x.classes = append(x.classes, piece.class)
		}
	}
	slices.Sort(x.classes)
	x.classes = slices.Compact(x.classes)
}

// classify puts the addresses of pods into classes: those that a peer selects, and those of pods that have a
// port under a name that rules use.
func (t *tenant) classify() {
	c := classes{
		ofAddress: map[netip.Addr]uint32{},
		members:   map[uint32][]netip.Addr{},
		named:     map[NamedPort]map[uint32][]uint16{},
	}

	known := map[kind]uint32{}
	add := func(a netip.Addr) {
		k := kind{mark: t.marks[a]}
		ports := t.usedPortsOf(t.owners[a])
		if len(ports) > 0 {
			k.ports = fmt.Sprint(ports)
		}

		class := known[k]
		if class == 0 {
			class = uint32(len(known) + 1)
			known[k] = class
			c.name(class, ports)
		}
		c.ofAddress[a] = class
		c.members[class] = append(c.members[class], a)
	}

	for a := range t.marks {
		add(a)
	}
	for name := range t.names {
		for _, pod := range t.havingPort(name) {
			for _, a := range pod.Addresses {
				if t.owners[a] == pod && c.ofAddress[a] == 0 {
					add(a)
				}
			}
		}
	}

	t.classes = c
}

// name says which ports a class has by name.
func (c classes) name(class uint32, ports []NamedPort) {
	for _, port := range ports {
		name := port.unnumbered()
		if c.named[name] == nil {
			c.named[name] = map[uint32][]uint16{}
		}
		c.named[name][class] = append(c.named[name][class], port.Number)
	}
}

// usedPortsOf returns those of a pod's ports that an egress rule of the namespace has by name.
func (t *tenant) usedPortsOf(pod *Pod) (used []NamedPort) {
	if len(t.names) == 0 || pod.Unknown {
		return nil
	}
	for _, port := range sortedPorts(pod.Ports) {
		if t.names[port.unnumbered()] {
			used = append(used, port)
		}
	}
	return used
}

// havingPort returns the pods that have a port under a name.
func (w *work) havingPort(name NamedPort) []*Pod {
	if w.byPort == nil {
		w.byPort = map[NamedPort][]*Pod{}
		for _, pod := range w.in.Pods {
			for _, port := range pod.Ports {
				key := port.unnumbered()
				if all := w.byPort[key]; !pod.Unknown && (len(all) == 0 || all[len(all)-1] != pod) {
					w.byPort[key] = append(all, pod)
				}
			}
		}
	}
	return w.byPort[name]
}
