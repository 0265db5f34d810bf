package routing

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netd/overlay"
	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/prefix"
)

// vicinity is what this node is connected to.
type vicinity struct {
	// networks has the index of the interface by network.
	networks *podcidr.Index[int]
	// addresses are those of this node.
	addresses *podcidr.Index[string]
	// nodes has the name of the Node by InternalIP.
	nodes *podcidr.Index[string]
	// pods has the name of the Node by pod CIDR.
	pods *podcidr.Index[string]
	// ofMAC has the name of the first Node by the MAC address of its tunnels.
	ofMAC map[[6]byte]string
	// routers are the gateways of the default routes, if they matter.
	routers []netip.Addr
}

func newVicinity(s Situation) vicinity {
	v := vicinity{
		networks:  podcidr.NewIndex[int](s.Nodes),
		addresses: podcidr.NewIndex[string](s.Nodes),
		nodes:     podcidr.NewIndex[string](s.Nodes),
		pods:      podcidr.NewIndex[string](s.Nodes),
		ofMAC:     make(map[[6]byte]string, len(s.Nodes)),
		routers:   s.Routers,
	}

	for _, l := range s.Local {
		v.networks.Add(l.Prefix, l.Index)
		v.addresses.Add(prefix.Single(l.Prefix.Addr()), "")
	}

	for _, n := range s.Nodes {
		for _, p := range n.PodCIDRs {
			v.pods.Add(p, n.Name)
		}
		for _, a := range n.Addresses {
			v.nodes.Add(prefix.Single(a), n.Name)
		}
	}

	// The first Node that was created wins, as with pod CIDRs.
	for _, n := range podcidr.BySeniority(s.Nodes) {
		if mac := overlay.MACOf(n.Name); v.ofMAC[mac] == "" {
			v.ofMAC[mac] = n.Name
		}
	}

	return v
}

// refuse returns an error when packets to pods must not be sent to another node: a wrong pod CIDR must not
// take over this node's own networks.
func (v vicinity) refuse(pods netip.Prefix, own podcidr.Node) error {
	for _, p := range own.PodCIDRs {
		if p.Overlaps(pods) {
			return fmt.Errorf("it overlaps this node's pod CIDR %s", p)
		}
	}

	if network, _, ok := v.networks.Within(pods); ok {
		return fmt.Errorf("this node is itself on the network %s", network)
	}
	if address, _, ok := v.addresses.Within(pods); ok {
		return fmt.Errorf("it holds this node's address %s", address.Addr())
	}

	// What else is on a network of this node must stay within reach.
	if !v.isOnLink(pods) {
		return nil
	}

	for _, r := range v.routers {
		if pods.Contains(r) {
			return fmt.Errorf("it holds the router %s", r)
		}
	}

	if address, name, ok := v.nodes.Within(pods); ok {
		return fmt.Errorf("it holds node %s's address %s", name, address.Addr())
	}

	return nil
}

// isOnLink reports whether pods are a part of a network that this node is on.
func (v vicinity) isOnLink(pods netip.Prefix) bool {
	_, _, ok := v.networks.Around(pods)
	return ok
}

// NeedsRouters reports whether a pod CIDR may hold the gateway of a default route. Looking for those takes a
// list of all routes.
func NeedsRouters(s Situation) bool {
	v := newVicinity(s)
	return slices.ContainsFunc(s.Nodes, func(n podcidr.Node) bool {
		return n.Name != s.Own.Name && slices.ContainsFunc(n.PodCIDRs, v.isOnLink)
	})
}

// nextHop returns the first address of a node, in the family of its pods, that is on link here, and the
// interface of the most specific network. It returns the index 0 when there is none.
func (v vicinity) nextHop(node podcidr.Node, pods netip.Prefix) (netip.Addr, int) {
	for _, address := range node.Addresses {
		if v.isOwn(address) || !prefix.SameFamily(address, pods.Addr()) {
			continue
		}
		if _, index, ok := v.networks.Around(prefix.Single(address)); ok {
			return address, index
		}
	}
	return netip.Addr{}, 0
}

// ends returns the addresses between which a tunnel to a node leads: IPv4 if both nodes have it, so that both
// decide alike.
func (v vicinity) ends(s Situation, node podcidr.Node) (local, remote netip.Addr, err error) {
	if s.Overlay == Never {
		const format = "none of its addresses %v is on a network of this node, and tunnels are switched off"
		return local, remote, fmt.Errorf(format, node.Addresses)
	}
	if first := v.ofMAC[overlay.MACOf(node.Name)]; first != node.Name {
		return local, remote, fmt.Errorf("its tunnels have the MAC address of those of node %s", first)
	}

	possible := v.endsOf(node)
	for _, isFamily := range []func(netip.Addr) bool{netip.Addr.Is4, netip.Addr.Is6} {
		mine := slices.IndexFunc(s.Own.Addresses, func(a netip.Addr) bool {
			return isFamily(a) && v.isOwn(a)
		})
		theirs := slices.IndexFunc(possible, isFamily)
		if mine >= 0 && theirs >= 0 {
			return s.Own.Addresses[mine], possible[theirs], nil
		}
	}

	const format = "none of its addresses %v is on a network of this node, " +
		"and no tunnel leads there from this node's %v"
	return local, remote, fmt.Errorf(format, node.Addresses, s.Own.Addresses)
}

// endsOf returns the addresses of a Node that may be ends of tunnels. A Node may name any number.
func (v vicinity) endsOf(node podcidr.Node) []netip.Addr {
	const most = 16
	ends := slices.Clone(node.Addresses[:min(len(node.Addresses), most)])
	return slices.DeleteFunc(ends, func(a netip.Addr) bool { return !v.isEnd(a) })
}

// allowed returns from where packets of tunnels may come.
func (v vicinity) allowed(s Situation, tunnels []overlay.Tunnel) (all []netip.Addr) {
	for _, t := range tunnels {
		all = append(all, t.Local)
	}
	for _, n := range s.Nodes {
		if n.Name != s.Own.Name && len(n.PodCIDRs) > 0 {
			all = append(all, v.endsOf(n)...)
		}
	}
	return all
}

// isOwn reports whether this node has an address.
func (v vicinity) isOwn(a netip.Addr) bool {
	_, _, ok := v.addresses.Around(prefix.Single(a))
	return ok
}

// isEnd reports whether a tunnel may lead to an address: one that another machine can have, and that is not
// itself reached through a tunnel.
func (v vicinity) isEnd(a netip.Addr) bool {
	_, _, isPod := v.pods.Around(prefix.Single(a))
	return a.IsGlobalUnicast() && !isPod && !v.isOwn(a)
}
