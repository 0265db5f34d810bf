// Package policytest judges flows by the words of NetworkPolicy, one policy after the other, and makes
// clusters at random: what compiles policies, and what filters by them, is compared with it.
package policytest

import (
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/policy"
)

// Flow is the first packet of a connection.
type Flow struct {
	From, To netip.Addr
	Protocol uint8
	Port     uint16
}

// Reference judges flows.
type Reference struct{ policy.Cluster }

func (r Reference) podAt(a netip.Addr) *policy.Pod {
	for _, p := range r.Pods {
		if slices.Contains(p.Addresses, a) {
			return p
		}
	}
	return nil
}

// Allows reports whether a flow passes this node.
func (r Reference) Allows(f Flow) bool {
	return f.From == f.To || r.allowsIn(policy.Egress, f) && r.allowsIn(policy.Ingress, f)
}

func (r Reference) allowsIn(d policy.Direction, f Flow) bool {
	self, peer := f.To, f.From
	if d == policy.Egress {
		self, peer = f.From, f.To
	}
	pod := r.podAt(self)
	if pod == nil || !pod.Local {
		return true
	}

	isolated := false
	for _, p := range r.Policies {
		if p.Namespace != pod.Namespace || !p.Isolates[d] {
			continue
		}
		if pod.Unknown {
			return false
		}
		if !p.Pods.Matches(pod.Labels) {
			continue
		}

		isolated = true
		for _, rule := range p.Rules[d] {
			if r.isPeer(p, rule, peer) && r.isPort(rule, r.podAt(f.To), f) {
				return true
			}
		}
	}

	return !isolated
}

func (r Reference) isPeer(p *policy.Policy, rule policy.Rule, a netip.Addr) bool {
	if len(rule.Peers) == 0 {
		return true
	}
	pod := r.podAt(a)
	return slices.ContainsFunc(rule.Peers, func(peer policy.Peer) bool {
		switch {
		case peer.Block.IsValid():
			inside := func(x netip.Prefix) bool { return x.Contains(a) }
			return peer.Block.Contains(a) && !slices.ContainsFunc(peer.Except, inside)
		case pod == nil || pod.Unknown || !peer.Pods.Matches(pod.Labels):
			return false
		case peer.Namespaces == nil:
			return pod.Namespace == p.Namespace
		default:
			set, known := r.Namespaces[pod.Namespace]
			return known && peer.Namespaces.Matches(set)
		}
	})
}

func (r Reference) isPort(rule policy.Rule, to *policy.Pod, f Flow) bool {
	if len(rule.Ports) == 0 {
		return true
	}
	return slices.ContainsFunc(rule.Ports, func(p policy.Port) bool {
		if p.Protocol != f.Protocol {
			return false
		}
		if p.Name == "" {
			return p.First <= f.Port && f.Port <= p.Last
		}
		named := policy.NamedPort{Name: p.Name, Protocol: p.Protocol, Number: f.Port}
		return to != nil && !to.Unknown && slices.Contains(to.Ports, named)
	})
}
