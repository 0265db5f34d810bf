package netd

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// vicinity is what this node is connected to.
type vicinity struct {
	// networks has the index of the interface by network.
	networks *podcidr.Index[int]
	// addresses are those of this node.
	addresses *podcidr.Index[string]
	// nodes has the name of the Node by InternalIP.
	nodes *podcidr.Index[string]
	// routers are the gateways of the default routes, if they matter.
	routers []netip.Addr
}

func newVicinity(admitted []podcidr.Node, local []rtnl.InterfaceAddress) vicinity {
	v := vicinity{
		networks:  podcidr.NewIndex[int](admitted),
		addresses: podcidr.NewIndex[string](admitted),
		nodes:     podcidr.NewIndex[string](admitted),
	}

	for _, l := range local {
		v.networks.Add(l.Prefix, l.Index)
		v.addresses.Add(prefix.Single(l.Prefix.Addr()), "")
	}

	for _, n := range admitted {
		for _, a := range n.Addresses {
			v.nodes.Add(prefix.Single(a), n.Name)
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

// findRouters looks for the gateways of the default routes. That takes a list of all routes, so it is made
// only when a pod CIDR may hold one of them.
func (v *vicinity) findRouters(kernel *rtnl.Conn, own podcidr.Node, admitted []podcidr.Node) error {
	isNear := func(n podcidr.Node) bool {
		return n.Name != own.Name && slices.ContainsFunc(n.PodCIDRs, v.isOnLink)
	}
	if !slices.ContainsFunc(admitted, isNear) {
		return nil
	}
	defaults, err := kernel.DefaultRoutes()
	for _, r := range defaults {
		v.routers = append(v.routers, r.Gateway)
	}
	return err
}

// nextHop returns the first address of a node, in the family of its pods, that is on link here, and the
// interface of the most specific network. It returns the index 0 when there is none.
func (v vicinity) nextHop(node podcidr.Node, pods netip.Prefix) (netip.Addr, int) {
	for _, address := range node.Addresses {
		_, _, isOwn := v.addresses.Around(prefix.Single(address))
		if isOwn || !prefix.SameFamily(address, pods.Addr()) {
			continue
		}
		if _, index, ok := v.networks.Around(prefix.Single(address)); ok {
			return address, index
		}
	}
	return netip.Addr{}, 0
}
