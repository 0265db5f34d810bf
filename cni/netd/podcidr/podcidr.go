// Package podcidr decides which pod CIDRs of a cluster's Nodes are admitted. A Node is written by the machine
// that it stands for, so the credential of one machine is enough to claim any network. A claim that is
// refused gets no route and no exception from masquerading, on any node.
package podcidr

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/trivet-node/trivet/cni/prefix"
)

// Node is what routing needs to know of a Node.
type Node struct {
	Name     string
	UID      string
	Created  time.Time
	PodCIDRs []netip.Prefix
	// Addresses are those of type InternalIP.
	Addresses []netip.Addr
}

// Rules are what the pod CIDRs of all Nodes have to comply with.
type Rules struct {
	// Cluster is where pod CIDRs lie. For a family without any, refuseUnlikely decides.
	Cluster []netip.Prefix
	// Services are the networks of Services, and the addresses of the API server.
	Services []netip.Prefix
}

// Refusal is a pod CIDR that is not admitted.
type Refusal struct {
	Node Node
	CIDR netip.Prefix
	Why  string
}

func (r Refusal) String() string {
	return fmt.Sprintf("node %s: pod CIDR %s is refused: %s", r.Node.Name, r.CIDR, r.Why)
}

// Admit returns the Nodes with the pod CIDRs that are admitted, in their order, and the refusals. The Node
// that was created first wins, so all nodes decide alike, and no later Node takes anything from an earlier
// one. own is the Node to compare with when the cluster's networks are not known.
func (r Rules) Admit(own Node, all []Node) (admitted []Node, refused []Refusal) {
	taken := NewIndex[string](all)
	addresses := NewIndex[string](all)
	accepted := make(map[string][]netip.Prefix, len(all))

	// A Node is compared with those before it only, its own addresses included.
	for _, n := range BySeniority(all) {
		for _, a := range n.Addresses {
			if !r.isPodAddress(a) {
				addresses.Add(prefix.Single(a), n.Name)
			}
		}

		for _, pods := range n.PodCIDRs {
			if why := r.refuse(pods, own, taken, addresses); why != "" {
				refused = append(refused, Refusal{Node: n, CIDR: pods, Why: why})
				continue
			}

			taken.Add(pods, n.Name)
			accepted[n.Name] = append(accepted[n.Name], pods)
		}
	}

	admitted = slices.Clone(all)
	for i := range admitted {
		admitted[i].PodCIDRs = accepted[admitted[i].Name]
	}

	return admitted, refused
}

// BySeniority returns Nodes by the time of creation, which the API server sets and nobody changes.
func BySeniority(all []Node) []Node {
	sorted := slices.Clone(all)
	slices.SortFunc(sorted, func(a, b Node) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return sorted
}

// isPodAddress reports whether an address is known to be one of pods. A Node that claims such an address is
// not listened to: it could take the pod CIDR of a later Node away with it.
func (r Rules) isPodAddress(a netip.Addr) bool {
	return slices.ContainsFunc(r.Cluster, func(c netip.Prefix) bool { return c.Contains(a) })
}

// refuse returns why a pod CIDR is not admitted beside those which are taken and the addresses of Nodes that
// were there before; "" means that it is.
func (r Rules) refuse(pods netip.Prefix, own Node, taken, addresses *Index[string]) string {
	if pods.Bits() == 0 {
		return "that is everything"
	}
	if why := r.refuseOutside(pods, own); why != "" {
		return why
	}

	for _, s := range r.Services {
		if s.Overlaps(pods) {
			return fmt.Sprintf("it holds addresses of Services or of the API server, %s", s)
		}
	}

	if other, name, ok := taken.Overlapping(pods); ok {
		return fmt.Sprintf("node %s, which was there before, has %s", name, other)
	}
	if address, name, ok := addresses.Within(pods); ok {
		return fmt.Sprintf("it holds node %s's address %s", name, address.Addr())
	}

	return ""
}

// refuseOutside refuses a pod CIDR that is not where those of this cluster are.
func (r Rules) refuseOutside(pods netip.Prefix, own Node) string {
	familyIsKnown := false
	for _, c := range r.Cluster {
		if contains(c, pods) {
			return ""
		}
		if prefix.SameFamily(c.Addr(), pods.Addr()) {
			familyIsKnown = true
		}
	}

	if !familyIsKnown {
		return refuseUnlikely(pods, own)
	}

	return fmt.Sprintf("it is not within the cluster's pod networks %v", r.Cluster)
}

// contains reports whether p lies in outer as a whole.
func contains(outer, p netip.Prefix) bool {
	return outer.Bits() <= p.Bits() && outer.Contains(p.Addr())
}

// private are the networks that are not used on the Internet (RFC 1918, 6598, 4193).
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("fc00::/7"),
}

// wider is how many bits shorter than the own pod CIDR another one may be: clouds give pools of nodes pod
// CIDRs of different sizes.
const wider = 4

// refuseUnlikely is the rule without known networks of the cluster: a pod CIDR is private, or beside the own
// one if that is public, about as large as the own one, and of a family that this node's pods have.
func refuseUnlikely(pods netip.Prefix, own Node) string {
	likely := private
	sameFamily := func(p netip.Prefix) bool { return prefix.SameFamily(p.Addr(), pods.Addr()) }
	i := slices.IndexFunc(own.PodCIDRs, sameFamily)
	if i < 0 && len(own.PodCIDRs) > 0 {
		return "this node's pods have no addresses of its family (--cluster-cidr allows it)"
	}

	if i >= 0 {
		mine := own.PodCIDRs[i]
		if pods.Bits() < mine.Bits()-wider {
			const format = "it is more than %d times as large as this node's %s (--cluster-cidr allows it)"
			return fmt.Sprintf(format, 1<<wider, mine)
		}

		likely = append(slices.Clip(likely), allocation(mine))
	}

	if slices.ContainsFunc(likely, func(p netip.Prefix) bool { return contains(p, pods) }) {
		return ""
	}

	return "it is neither private nor beside this node's (--cluster-cidr allows it)"
}

// allocation returns the network round p that a registry gives to one holder at most: /16 for IPv4, /32 for
// IPv6.
func allocation(p netip.Prefix) netip.Prefix {
	bits := 32
	if p.Addr().Is4() {
		bits = 16
	}
	return netip.PrefixFrom(p.Addr(), min(bits, p.Bits())).Masked()
}
