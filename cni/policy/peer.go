package policy

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// target is whom rules are for: any address, those of the pods that a peer selects, or the blocks of a rule,
// which are one as they are allowed the same.
type target struct {
	any       bool
	addresses []netip.Addr
	parts     []part
	mark      mark
	// classes are those of its addresses, each once and in order.
	classes []uint32
}

// place says whom a rule is for.
type place struct {
	targets []*target
	// pods are the pods among them, for ports that these have by name. There are none without such ports.
	pods []*target
}

// rim is what the rules of a namespace say about other ends.
type rim struct {
	// targets are by the text of what selects them, and in the order in which they were found.
	targets map[string]*target
	order   []*target
	// anywhere is that of rules without peers.
	anywhere *target
	// names are the ports that egress rules have by name.
	names map[NamedPort]bool
	// places are those of the rules of a policy, in one direction.
	places map[*Rule]place
	// marks are those of each address of a pod.
	marks map[netip.Addr]mark

	classes classes
	// pieces are those of blocks, by class.
	pieces map[uint32][]piece
}

func newRim() *rim {
	return &rim{
		targets:  map[string]*target{},
		anywhere: &target{any: true, classes: []uint32{anyClass}},
		names:    map[NamedPort]bool{},
		places:   map[*Rule]place{},
		marks:    map[netip.Addr]mark{},
		pieces:   map[uint32][]piece{},
	}
}

func (r *rim) add(key string, x *target) {
	r.targets[key] = x
	r.order = append(r.order, x)
}

// findPeers finds whom the rules of policies that select pods of this node are for.
func (t *tenant) findPeers() {
	for _, d := range Directions {
		for _, p := range t.policies {
			if !t.used[d][p] || p.Refused != "" {
				continue
			}
			if p.combinations(d) > maxCombinations {
				t.refuse(p, "its rules have too many combinations of peers and ports")
			}
			for i := range p.Rules[d] {
				t.findPlace(p, d, &p.Rules[d][i])
			}
		}
	}
}

// combinations counts the pairs of a peer and a port that the rules of a direction have.
func (p *Policy) combinations(d Direction) (n int) {
	for _, r := range p.Rules[d] {
		n += max(1, len(r.Peers)) * max(1, len(r.Ports))
	}
	return n
}

func (t *tenant) findPlace(p *Policy, d Direction, r *Rule) {
	if !t.affordFor(p, 1+len(r.Peers)+len(r.Ports)) {
		return
	}
	named := d == Egress && t.findNames(p, r)

	var at place
	if len(r.Peers) == 0 {
		at.targets = []*target{t.anywhere}
	}

	var list []Peer
	for _, peer := range r.Peers {
		if peer.Block.IsValid() {
			list = append(list, peer)
		} else if x := t.podsOf(p, peer); x != nil {
			at.targets = append(at.targets, x)
		}
	}
	if named {
		at.pods = slices.Clone(at.targets)
	}

	if len(list) > 0 {
		if x := t.blockOf(p, list); x != nil {
			at.targets = append(at.targets, x)
		}
	}
	if len(list) > 0 && named {
		if x := t.podsWithin(p, list); x != nil {
			at.pods = append(at.pods, x)
		}
	}

	t.places[r] = at
}

// findNames notes the ports that an egress rule has by name, and reports whether there are any.
func (t *tenant) findNames(p *Policy, r *Rule) (named bool) {
	for _, port := range r.Ports {
		name := port.named()
		if name.Name == "" {
			continue
		}
		named = true
		if !t.names[name] && t.affordFor(p, len(t.havingPort(name))) {
			t.names[name] = true
		}
	}
	return named
}

// podsOf returns the pods that a peer selects; nil when there are none, or the policy has no more right to
// have them looked for.
func (t *tenant) podsOf(p *Policy, peer Peer) *target {
	if isNothing(peer.Pods) || peer.Namespaces != nil && isNothing(peer.Namespaces) {
		return nil
	}
	key := "own | " + peer.Pods.String()
	if peer.Namespaces != nil {
		key = "all " + peer.Namespaces.String() + " | " + peer.Pods.String()
	}
	if x := t.targets[key]; x != nil {
		return x
	}

	candidates := t.byNS[p.Namespace]
	if peer.Namespaces != nil {
		if !t.affordFor(p, len(t.in.Namespaces)*costOf(peer.Namespaces)) {
			return nil
		}
		candidates = t.podsIn(peer.Namespaces)
	}
	if !t.affordFor(p, len(candidates)*costOf(peer.Pods)) {
		return nil
	}

	x := t.newPods(candidates, func(pod *Pod, _ netip.Addr) bool { return peer.Pods.Matches(pod.Labels) })
	t.add(key, x)
	return x
}

// isNothing reports whether a selector is the one that selects nothing. Its text is that of the one that
// selects everything.
func isNothing(s labels.Selector) bool {
	_, selectable := s.Requirements()
	return !selectable
}

// costOf is the effort of matching one object.
func costOf(s labels.Selector) int {
	requirements, _ := s.Requirements()
	cost := 1
	for _, r := range requirements {
		cost += 1 + len(r.ValuesUnsorted())
	}
	return cost
}

// podsIn returns the pods of the namespaces that a selector selects.
func (w *work) podsIn(namespaces labels.Selector) (all []*Pod) {
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
func (t *tenant) podsWithin(p *Policy, list []Peer) *target {
	key := "in " + textOf(list)
	if x := t.targets[key]; x != nil {
		return x
	}

	blocks := 0
	for _, peer := range list {
		blocks += 1 + len(peer.Except)
	}
	if !t.affordFor(p, len(t.in.Pods)*blocks) {
		return nil
	}

	x := t.newPods(t.in.Pods, func(_ *Pod, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(b Peer) bool { return b.includes(a) })
	})
	t.add(key, x)
	return x
}

// newPods returns the addresses of the candidates that match, and marks them.
func (t *tenant) newPods(candidates []*Pod, matches func(*Pod, netip.Addr) bool) *target {
	x := &target{mark: newMark()}
	for _, pod := range candidates {
		for _, a := range pod.Addresses {
			if pod.Unknown || t.owners[a] != pod || !matches(pod, a) {
				continue
			}
			x.addresses = append(x.addresses, a)
			m := t.marks[a]
			m.toggle(x.mark)
			t.marks[a] = m
		}
	}
	return x
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
