// Package policy compiles NetworkPolicies for one node: from the policies, pods and namespaces of the cluster
// to the elements of a few nftables sets. It is a function of values: it reads nothing and writes nothing.
//
// A packet is judged by what its addresses lead to, not by one policy after the other. The local pod's
// address leads to a profile, one for all pods that the same policies select; the other end's address leads,
// in the profile, to the ports that all of these policies together allow it. So a packet costs the same with
// one policy and with a thousand, and a policy that changes is a few elements.
//
// What policies mean: https://kubernetes.io/docs/concepts/services-networking/network-policies/
package policy

import (
	"cmp"
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"
)

// Direction is that of traffic as a pod sees it.
type Direction int

// The two directions.
const (
	Ingress Direction = iota
	Egress
)

// Directions are both.
var Directions = [2]Direction{Ingress, Egress}

func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

// Policy is a NetworkPolicy. It is not changed once it is made.
type Policy struct {
	Namespace string
	Name      string
	// Pods selects pods of the namespace.
	Pods labels.Selector
	// Isolates says in which directions a selected pod has only what rules allow (policyTypes).
	Isolates [2]bool
	// Rules are those of each direction.
	Rules [2][]Rule
	// Refused says why the policy's rules are left out, and with them all that they would allow.
	Refused string
}

// Key is NAMESPACE/NAME.
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

// Rule allows traffic with any of the peers on any of the ports. No peers are all, and so are no ports.
type Rule struct {
	Peers []Peer
	Ports []Port
}

// Peer is a block of addresses, or else pods.
type Peer struct {
	// Block is valid for a block; Except are within it.
	Block  netip.Prefix
	Except []netip.Prefix

	// Pods and Namespaces select pods. Nil Namespaces are that of the policy.
	Pods       labels.Selector
	Namespaces labels.Selector
}

// Port is a range of ports of a protocol, or one that pods have by name.
type Port struct {
	Protocol uint8
	First    uint16
	Last     uint16
	// Name is that of a container's port: of the selected pod for ingress, of the other one for egress.
	Name string
}

// named is what pods have to have under a port's name, which is empty for one by number.
func (p Port) named() NamedPort { return NamedPort{Name: p.Name, Protocol: p.Protocol} }

// AnyPort are all ports of a protocol.
func AnyPort(protocol uint8) Port { return Port{Protocol: protocol, Last: 65535} }

// Pod is what policies need to know of a pod that is not in its node's own network.
type Pod struct {
	Namespace string
	Name      string
	Labels    labels.Set
	Addresses []netip.Addr
	Ports     []NamedPort
	// Local pods are this node's: policies are in force where the pod is.
	Local bool
	// Unknown is a local pod of which nothing is known but its name. It has nothing in a namespace with
	// policies.
	Unknown bool
}

// ComparePods orders pods by namespace and name.
func ComparePods(a, b *Pod) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// NamedPort is a port of a container.
type NamedPort struct {
	Name     string
	Protocol uint8
	Number   uint16
}

// unnumbered is the name alone.
func (p NamedPort) unnumbered() NamedPort { return NamedPort{Name: p.Name, Protocol: p.Protocol} }

// Cluster is what is compiled.
type Cluster struct {
	Policies []*Policy
	// Pods have one owner for each address: of several the first counts.
	Pods []*Pod
	// Namespaces have their labels.
	Namespaces map[string]labels.Set
}

// State is what the kernel is to have. A profile keeps its number from one State of a Compiler to the next
// where it can.
type State struct {
	// Numbers are the profiles of local pods that are isolated, by direction.
	Numbers  [2]map[netip.Addr]uint32
	Profiles map[uint32]*Profile

	// Namespaces are those with policies.
	Namespaces map[string]bool
	// Problems name the policies whose rules are not in force.
	Problems []string
}

// Profile is what pods may have in a direction: what Any has, what Peers have for a pod's address, and what
// Blocks have for any address. The rest they may not.
type Profile struct {
	Direction Direction
	Any       Ports
	Peers     map[netip.Addr]Ports
	// Blocks are disjoint and in order.
	Blocks []Interval
}

// Interval is a range of addresses, both ends included, and what is allowed with them.
type Interval struct {
	First netip.Addr
	Last  netip.Addr
	Ports Ports
}

// IsEmpty reports whether nothing is to be in the kernel.
func (s *State) IsEmpty() bool { return len(s.Namespaces) == 0 }

func comparePolicies(a, b *Policy) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
