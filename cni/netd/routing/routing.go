// Package routing decides how a node reaches the pods of the others, from their Nodes and from what this node
// is connected to, and keeps the routes. A node on the same network is the next hop itself; others are
// reached through a tunnel of package overlay.
package routing

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netd/overlay"
	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Mode says which nodes are reached through tunnels.
type Mode string

const (
	// Auto is nodes that are on no network of this node.
	Auto Mode = "auto"
	// Always is all nodes: for networks that carry no packets of pods.
	Always Mode = "always"
	// Never is none of them.
	Never Mode = "never"
)

// Modes are all of them.
var Modes = []Mode{Auto, Always, Never}

// Situation is what a plan depends on.
type Situation struct {
	// Own is this node, and Nodes are all, with the pod CIDRs that are admitted.
	Own   podcidr.Node
	Nodes []podcidr.Node
	// Local are the addresses of this node's interfaces.
	Local []rtnl.InterfaceAddress
	// Routers are the gateways of the default routes; they matter only if NeedsRouters says so.
	Routers []netip.Addr
	Overlay Mode
	// MTU is that of the network between the nodes; 0 is not known.
	MTU int
}

// Plan is how a node reaches the pods of all others.
type Plan struct {
	// Routes are those through other nodes' own addresses, and those to own pod addresses that no pod has.
	Routes []rtnl.Route
	// Tunnels are one for each family of addresses that is used.
	Tunnels []overlay.Tunnel
	// Allowed are the addresses from which packets of tunnels may come: those of all Nodes with pods, which
	// may be ends where none is used here.
	Allowed []netip.Addr
	// Notes say which pods are not reached, and why.
	Notes []string
}

// NewPlan decides. A node that is out of reach gets a note, and the others their routes.
func NewPlan(s Situation) Plan {
	v := newVicinity(s)
	plan := Plan{Routes: unreachable(s.Own)}
	through := map[netip.Addr]*overlay.Tunnel{}
	for _, node := range s.Nodes {
		if node.Name == s.Own.Name {
			continue
		}

		var tunnelled []netip.Prefix
		for _, pods := range node.PodCIDRs {
			if err := v.refuse(pods, s.Own); err != nil {
				plan.note(node, pods, err)
				continue
			}

			gateway, index := v.nextHop(node, pods)
			if index == 0 || s.Overlay == Always {
				tunnelled = append(tunnelled, pods)
				continue
			}
			plan.Routes = append(plan.Routes, direct(pods, gateway, index))
		}

		plan.tunnel(s, v, node, tunnelled, through)
	}

	for _, t := range through {
		plan.Tunnels = append(plan.Tunnels, *t)
	}
	slices.SortFunc(plan.Tunnels, func(a, b overlay.Tunnel) int { return a.Local.Compare(b.Local) })
	if len(plan.Tunnels) > 0 {
		plan.Allowed = v.allowed(s, plan.Tunnels)
	}
	return plan
}

// tunnel plans the way to pods of a node that is not the next hop itself. through has the tunnels by this
// node's address.
func (p *Plan) tunnel(
	s Situation, v vicinity, node podcidr.Node, pods []netip.Prefix, through map[netip.Addr]*overlay.Tunnel,
) {
	if len(pods) == 0 {
		return
	}

	local, remote, err := v.ends(s, node)
	if err != nil {
		for _, cidr := range pods {
			p.note(node, cidr, err)
		}
		return
	}

	t := through[local]
	if t == nil {
		t = &overlay.Tunnel{
			Name:  s.Own.Name,
			Local: local,
			Pods:  s.Own.PodCIDRs,
			MTU:   s.MTU,
		}
		through[local] = t
	}
	t.Peers = append(t.Peers, overlay.Peer{Name: node.Name, Address: remote, Pods: pods})
}

func (p *Plan) note(node podcidr.Node, pods netip.Prefix, err error) {
	const format = "node %s: no route to its pods %s: %s"
	p.Notes = append(p.Notes, fmt.Sprintf(format, node.Name, pods, err))
}

// unreachable returns routes that keep packets to own pod addresses from leaving by the default route while
// there is no bridge.
func unreachable(own podcidr.Node) (all []rtnl.Route) {
	for _, pods := range own.PodCIDRs {
		all = append(all, rtnl.Route{
			Dst:         pods,
			Unreachable: true,
			Priority:    unreachablePriority,
			Protocol:    protocol,
		})
	}
	return all
}

func direct(pods netip.Prefix, gateway netip.Addr, index int) rtnl.Route {
	return rtnl.Route{
		Dst:      pods,
		Gateway:  gateway,
		Index:    index,
		Priority: peerPriority,
		Protocol: protocol,
	}
}

// ThroughTunnels returns routes of tunnels as ones of this package.
func ThroughTunnels(routes []rtnl.Route) []rtnl.Route {
	all := slices.Clone(routes)
	for i := range all {
		all[i].Priority = tunnelPriority
		all[i].Protocol = protocol
	}
	return all
}
