package policies

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/cni/policy"
	"golang.org/x/sys/unix"
)

// maxParts is how many rules, peers, exceptions, ports and requirements of selectors a policy may have
// together. An object of the API may be 1.5 MB large, which is ten times as many.
const maxParts = 3000

// Convert returns a NetworkPolicy as it is compiled. One that cannot be read as it is meant, or that is too
// large, allows nothing.
func Convert(o *networkingv1.NetworkPolicy) *policy.Policy {
	p := &policy.Policy{Namespace: o.Namespace, Name: o.Name}
	p.Isolates = isolates(o.Spec)

	var err error
	if p.Pods, err = metav1.LabelSelectorAsSelector(&o.Spec.PodSelector); err != nil {
		// It is not known whom it is about: nobody in the namespace is better off for that.
		p.Pods = labels.Everything()
		p.Refused = err.Error()
		return p
	}
	if n := countParts(o.Spec); n > maxParts {
		const format = "it has %d rules, peers, exceptions, ports and requirements, more than %d"
		p.Refused = fmt.Sprintf(format, n, maxParts)
		if sizeOf(&o.Spec.PodSelector) > maxParts {
			p.Pods = labels.Everything()
		}
		return p
	}

	for _, r := range o.Spec.Ingress {
		err = addRule(p, policy.Ingress, r.From, r.Ports, err)
	}
	for _, r := range o.Spec.Egress {
		err = addRule(p, policy.Egress, r.To, r.Ports, err)
	}
	if err != nil {
		p.Refused = err.Error()
		p.Rules = [2][]policy.Rule{}
	}

	return p
}

// isolates are the directions of policyTypes, which the API server fills in.
func isolates(spec networkingv1.NetworkPolicySpec) (d [2]bool) {
	if len(spec.PolicyTypes) == 0 {
		return [2]bool{policy.Ingress: true, policy.Egress: len(spec.Egress) > 0}
	}
	for _, t := range spec.PolicyTypes {
		switch t {
		case networkingv1.PolicyTypeIngress:
			d[policy.Ingress] = true
		case networkingv1.PolicyTypeEgress:
			d[policy.Egress] = true
		}
	}
	return d
}

func countParts(spec networkingv1.NetworkPolicySpec) int {
	n := len(spec.Ingress) + len(spec.Egress) + sizeOf(&spec.PodSelector)
	count := func(peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
		n += len(peers) + len(ports)
		for _, p := range peers {
			n += sizeOf(p.PodSelector) + sizeOf(p.NamespaceSelector)
			if p.IPBlock != nil {
				n += len(p.IPBlock.Except)
			}
		}
	}
	for _, r := range spec.Ingress {
		count(r.From, r.Ports)
	}
	for _, r := range spec.Egress {
		count(r.To, r.Ports)
	}
	return n
}

// sizeOf counts the requirements of a selector, and their values.
func sizeOf(s *metav1.LabelSelector) int {
	if s == nil {
		return 0
	}
	n := len(s.MatchLabels)
	for _, r := range s.MatchExpressions {
		n += 1 + len(r.Values)
	}
	return n
}

// addRule adds a rule to a policy, unless an earlier one was wrong.
func addRule(
	p *policy.Policy,
	d policy.Direction,
	peers []networkingv1.NetworkPolicyPeer,
	ports []networkingv1.NetworkPolicyPort,
	earlier error,
) error {
	if earlier != nil {
		return earlier
	}

	var r policy.Rule
	for _, peer := range peers {
		converted, err := convertPeer(peer)
		if err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
		r.Peers = append(r.Peers, converted)
	}
	for _, port := range ports {
		converted, err := convertPort(port)
		if err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
		r.Ports = append(r.Ports, converted)
	}

	p.Rules[d] = append(p.Rules[d], r)
	return nil
}

func convertPeer(peer networkingv1.NetworkPolicyPeer) (p policy.Peer, err error) {
	if peer.IPBlock != nil {
		return convertBlock(peer.IPBlock)
	}

	p.Pods = labels.Everything()
	if peer.PodSelector != nil {
		if p.Pods, err = metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil {
			return p, err
		}
	}
	if peer.NamespaceSelector != nil {
		p.Namespaces, err = metav1.LabelSelectorAsSelector(peer.NamespaceSelector)
		return p, err
	}
	if peer.PodSelector == nil {
		// A peer that selects nothing: a newer API may have another kind. Left out it would, were it the
		// only one, leave a rule for everybody.
		p.Pods = labels.Nothing()
	}
	return p, nil
}

func convertBlock(b *networkingv1.IPBlock) (p policy.Peer, err error) {
	if p.Block, err = parseBlock(b.CIDR); err != nil {
		return p, err
	}
	for _, text := range b.Except {
		except, err := parseBlock(text)
		if err != nil {
			return p, err
		}
		// What is not within the block takes nothing away from it.
		if p.Block.Overlaps(except) {
			p.Except = append(p.Except, except)
		}
	}
	return p, nil
}

func parseBlock(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() {
		err = fmt.Errorf("ipBlock %q: an IPv4 network in IPv6 form", text)
	}
	return p.Masked(), err
}

var protocols = map[corev1.Protocol]uint8{
	"":                  unix.IPPROTO_TCP,
	corev1.ProtocolTCP:  unix.IPPROTO_TCP,
	corev1.ProtocolUDP:  unix.IPPROTO_UDP,
	corev1.ProtocolSCTP: unix.IPPROTO_SCTP,
}

func convertPort(port networkingv1.NetworkPolicyPort) (p policy.Port, err error) {
	kind := corev1.ProtocolTCP
	if port.Protocol != nil {
		kind = *port.Protocol
	}
	protocol, known := protocols[kind]
	if !known {
		return p, fmt.Errorf("protocol %q is not supported", kind)
	}

	switch {
	case port.Port == nil:
		return policy.AnyPort(protocol), nil
	case port.Port.Type == intstr.String:
		return policy.Port{Protocol: protocol, Name: port.Port.StrVal}, nil
	}

	first, last := port.Port.IntVal, port.Port.IntVal
	if port.EndPort != nil {
		last = *port.EndPort
	}
	if first < 0 || last > 65535 || last < first {
		return p, fmt.Errorf("ports %d to %d are none", first, last)
	}
	return policy.Port{Protocol: protocol, First: uint16(first), Last: uint16(last)}, nil
}

// slimPolicy drops what need not be kept.
func slimPolicy(o *networkingv1.NetworkPolicy) {
	o.ObjectMeta = metav1.ObjectMeta{
		Namespace:       o.Namespace,
		Name:            o.Name,
		UID:             o.UID,
		ResourceVersion: o.ResourceVersion,
	}
}
