package policy_test

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/trivet-node/trivet/cni/policy"
)

// flow is the first packet of a connection.
type flow struct {
	from, to netip.Addr
	protocol uint8
	port     uint16
}

// reference judges flows by the words of the API, one policy after the other.
type reference struct{ policy.Cluster }

func (r reference) podAt(a netip.Addr) *policy.Pod {
	for _, p := range r.Pods {
		if slices.Contains(p.Addresses, a) {
			return p
		}
	}
	return nil
}

// allows reports whether a flow passes this node.
func (r reference) allows(f flow) bool {
	return f.from == f.to || r.allowsIn(policy.Egress, f) && r.allowsIn(policy.Ingress, f)
}

func (r reference) allowsIn(d policy.Direction, f flow) bool {
	self, peer := f.to, f.from
	if d == policy.Egress {
		self, peer = f.from, f.to
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
			if r.isPeer(p, rule, peer) && r.isPort(rule, r.podAt(f.to), f) {
				return true
			}
		}
	}

	return !isolated
}

func (r reference) isPeer(p *policy.Policy, rule policy.Rule, a netip.Addr) bool {
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

func (r reference) isPort(rule policy.Rule, to *policy.Pod, f flow) bool {
	if len(rule.Ports) == 0 {
		return true
	}
	return slices.ContainsFunc(rule.Ports, func(p policy.Port) bool {
		if p.Protocol != f.protocol {
			return false
		}
		if p.Name == "" {
			return p.First <= f.port && f.port <= p.Last
		}
		named := policy.NamedPort{Name: p.Name, Protocol: p.Protocol, Number: f.port}
		return to != nil && !to.Unknown && slices.Contains(to.Ports, named)
	})
}

// kernel judges flows as the rules of the node do, by the sets of a State.
type kernel struct{ *policy.State }

func (k kernel) allows(f flow) bool {
	return f.from == f.to || k.allowsIn(policy.Egress, f.from, f.to, f) &&
		k.allowsIn(policy.Ingress, f.to, f.from, f)
}

func (k kernel) allowsIn(d policy.Direction, self, peer netip.Addr, f flow) bool {
	number, isolated := k.Numbers[d][self]
	if !isolated {
		return true
	}

	p := k.Profiles[number]
	if p.Any.Have(f.protocol, f.port) || p.Peers[peer].Have(f.protocol, f.port) {
		return true
	}
	return slices.ContainsFunc(p.Blocks, func(i policy.Interval) bool {
		return i.First.BitLen() == peer.BitLen() && !peer.Less(i.First) && !i.Last.Less(peer) &&
			i.Ports.Have(f.protocol, f.port)
	})
}

func selector(text string) labels.Selector {
	s, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}
