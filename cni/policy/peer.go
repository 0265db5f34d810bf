package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// group are the addresses of pods that a peer has.
type group struct {
	addresses []netip.Addr
	mark      mark
}

// place says whom a rule is for. Its blocks are one: they are allowed the same.
type place struct {
	any    bool
	groups []*group
	block  *block
	// inBlock are the pods in its blocks, for ports that pods have by name.
	inBlock *group
}

// rim is what the rules say about other ends.
type rim struct {
	// groups and blocks are by the text of what selects them.
	groups map[string]*group
	blocks map[string]*block
	// order has the blocks as they were found.
	order []*block
	// names are the ports that egress rules have by name.
	names map[NamedPort]bool
	// places are those of the rules of a policy, in one direction.
	places map[*Rule]place
	// marks are those of each address of a pod.
	marks map[netip.Addr]*mark
}

func newRim() *rim {
	return &rim{
		groups: map[string]*group{},
		blocks: map[string]*block{},
		names:  map[NamedPort]bool{},
		places: map[*Rule]place{},
		marks:  map[netip.Addr]*mark{},
	}
}

// findPeers finds whom the rules of policies that select pods of this node are for.
func (w *work) findPeers() {
	for _, d := range Directions {
		for _, p := range w.policies {
			if !w.used[d][p] || p.Refused != "" {
				continue
			}
			for i := range p.Rules[d] {
				w.findPlace(p, d, &p.Rules[d][i])
			}
		}
	}
}

func (w *work) findPlace(p *Policy, d Direction, r *Rule) {
	named := false
	for _, port := range r.Ports {
		if d == Egress && port.Name != "" {
			named = true
			w.rim.names[NamedPort{Name: port.Name, Protocol: port.Protocol}] = true
		}
	}

	at := place{any: len(r.Peers) == 0}
	var list []Peer
	for _, peer := range r.Peers {
		if peer.Block.IsValid() {
			list = append(list, peer)
			continue
		}
		if g := w.groupOf(p, peer); g != nil {
			at.groups = append(at.groups, g)
		}
	}

	if len(list) > 0 {
		at.block = w.blockOf(list)
	}
	if len(list) > 0 && named {
		at.inBlock = w.podsWithin(p, list)
	}

	w.rim.places[r] = at
}

// groupOf returns the pods that a peer selects; nil when the policy has no more right to have them looked
// for.
func (w *work) groupOf(p *Policy, peer Peer) *group {
	key := "own " + p.Namespace
	if peer.Namespaces != nil {
		key = "all " + peer.Namespaces.String()
	}
	key += " | " + peer.Pods.String()
	if g := w.rim.groups[key]; g != nil {
		return g
	}

	candidates := w.byNS[p.Namespace]
	if peer.Namespaces != nil {
		candidates = w.podsOf(peer.Namespaces)
	}
	if !w.afford(p, len(candidates)) {
		return nil
	}

	matches := func(pod *Pod, _ netip.Addr) bool { return peer.Pods.Matches(pod.Labels) }
	g := w.newGroup(candidates, matches)
	w.rim.groups[key] = g
	return g
}

// podsOf returns the pods of the namespaces that a selector selects.
func (w *work) podsOf(namespaces labels.Selector) (all []*Pod) {
	if namespaces.Empty() {
		return w.in.Pods
	}
	for name, set := range w.in.Namespaces {
		if namespaces.Matches(set) {
			all = append(all, w.byNS[name]...)
		}
	}
	return all
}

// podsWithin returns the pods whose addresses are in one of some blocks.
func (w *work) podsWithin(p *Policy, list []Peer) *group {
	key := fmt.Sprint("in ", textOf(list))
	if g := w.rim.groups[key]; g != nil {
		return g
	}
	if !w.afford(p, len(w.in.Pods)*len(list)) {
		return nil
	}

	matches := func(_ *Pod, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(b Peer) bool { return b.includes(a) })
	}
	g := w.newGroup(w.in.Pods, matches)
	w.rim.groups[key] = g
	return g
}

// newGroup returns the addresses of the candidates that match, and marks them.
func (w *work) newGroup(candidates []*Pod, matches func(*Pod, netip.Addr) bool) *group {
	g := &group{mark: newMark()}
	for _, pod := range candidates {
		for _, a := range pod.Addresses {
			if pod.Unknown || w.owners[a] != pod || !matches(pod, a) {
				continue
			}

			g.addresses = append(g.addresses, a)
			m := w.rim.marks[a]
			if m == nil {
				m = &mark{}
				w.rim.marks[a] = m
			}
			m.toggle(g.mark)
		}
	}
	return g
}

// includes reports whether a block has an address.
func (p Peer) includes(a netip.Addr) bool {
	return p.Block.Contains(a) &&
		!slices.ContainsFunc(p.Except, func(x netip.Prefix) bool { return x.Contains(a) })
}

func textOf(list []Peer) string {
	var b strings.Builder
	for _, p := range list {
		b.WriteString(p.Block.String())
		for _, x := range p.Except {
			b.WriteString("-" + x.String())
		}
		b.WriteByte(' ')
	}
	return b.String()
}

// anyClass is the class of any address. Those of pods' addresses begin at 1, and those of blocks follow.
const anyClass = 0

// classes are the addresses of pods, put together where no rule tells them apart.
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

// classify puts the addresses of pods into classes.
func (w *work) classify() classes {
	c := classes{
		ofAddress: map[netip.Addr]uint32{},
		members:   map[uint32][]netip.Addr{},
		named:     map[NamedPort]map[uint32][]uint16{},
	}

	known := map[kind]uint32{}
	for _, pod := range w.in.Pods {
		ports := w.namedPortsOf(pod)
		for _, a := range pod.Addresses {
			m := w.rim.marks[a]
			if w.owners[a] != pod || m == nil && len(ports) == 0 {
				continue
			}

			k := kind{}
			if m != nil {
				k.mark = *m
			}
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
	}

	return c
}

// name says which ports a class has by name.
func (c classes) name(class uint32, ports []NamedPort) {
	for _, port := range ports {
		name := NamedPort{Name: port.Name, Protocol: port.Protocol}
		if c.named[name] == nil {
			c.named[name] = map[uint32][]uint16{}
		}
		c.named[name][class] = append(c.named[name][class], port.Number)
	}
}

// namedPortsOf returns those of a pod's ports that an egress rule has by name.
func (w *work) namedPortsOf(pod *Pod) (used []NamedPort) {
	if len(w.rim.names) == 0 || pod.Unknown {
		return nil
	}
	for _, port := range sortedPorts(pod.Ports) {
		if w.rim.names[NamedPort{Name: port.Name, Protocol: port.Protocol}] {
			used = append(used, port)
		}
	}
	return used
}

// of returns the classes of a group, each once.
func (c classes) of(g *group) []uint32 {
	var all []uint32
	for _, a := range g.addresses {
		all = append(all, c.ofAddress[a])
	}
	slices.Sort(all)
	return slices.Compact(all)
}
