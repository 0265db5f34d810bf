// Package address has the addresses inside a cluster. They exist in the cluster's own namespaces only, so
// that two clusters on one host do not meet.
package address

import (
	"net/netip"
	"strings"
)

// What listens on the control plane.
const (
	APIPort   = 6443
	APIServer = "https://10.99.0.1:6443"
	Registry  = "10.99.0.1:5000"
	Traces    = "10.99.0.1:4317"
)

// The ranges of pods and Services, and the two Services that every cluster has.
const (
	Pods       = "10.244.0.0/16"
	Services   = "10.96.0.0/16"
	APIService = "10.96.0.1"
	DNSService = "10.96.0.10"
)

var (
	// ControlPlane is the control plane's machine, which is every other machine's gateway.
	ControlPlane = netip.MustParseAddr("10.99.0.1")

	// Critest is the machine on which critest meets a CRI server alone.
	Critest = netip.MustParseAddr("10.99.2.1")

	// Guest is the machine that joins by kubeadm.
	Guest = netip.MustParseAddr("10.99.3.1")
)

// Node is the address of the node with this index in the plan.
func Node(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 1, byte(i + 1)}) }

// The prefixes of the LAN: 10.99.0.0/16 and fd00:10:99::/64.
const (
	lanBits  = 16
	lanBits6 = 64
)

// OnLAN is a machine's address with the length of the LAN's prefix.
func OnLAN(a netip.Addr) netip.Prefix {
	if a.Is6() {
		return netip.PrefixFrom(a, lanBits6)
	}
	return netip.PrefixFrom(a, lanBits)
}

// The IPv6 ranges of a cluster with both families.
const (
	pods6     = "fd00:10:244::/48"
	services6 = "fd00:10:96::/112"
)

// Stack is which families a cluster has: IPv4, and IPv6 beside it if Dual.
type Stack struct {
	Dual bool `json:",omitempty"`
}

// Pods are the ranges of pods, comma separated as flags take them.
func (s Stack) Pods() string { return s.join(Pods, pods6) }

// Services are the ranges of Services.
func (s Stack) Services() string { return s.join(Services, services6) }

func (s Stack) join(v4, v6 string) string {
	if s.Dual {
		return v4 + "," + v6
	}
	return v4
}

// Machine are the addresses of a machine, given its IPv4 address: fd00:10:99::1:2 is that of 10.99.1.2.
func (s Stack) Machine(v4 netip.Addr) []netip.Addr {
	if !s.Dual {
		return []netip.Addr{v4}
	}

	low := v4.As4()
	v6 := netip.MustParseAddr("fd00:10:99::").As16()
	v6[13] = low[2]
	v6[15] = low[3]
	return []netip.Addr{v4, netip.AddrFrom16(v6)}
}

// Prefixes are the ranges of a comma separated list.
func Prefixes(list string) []netip.Prefix {
	var all []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// Of returns the address of the family of p.
func Of(p netip.Prefix, machine []netip.Addr) netip.Addr {
	for _, a := range machine {
		if a.Is4() == p.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
}
