// Package address has the addresses inside a cluster. They exist in the cluster's own namespaces only, so
// that two clusters on one host do not meet.
package address

import "net/netip"

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
)

// Node is the address of the node with this index in the plan.
func Node(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 1, byte(i + 1)}) }

// lanBits is the length of the LAN's prefix: 10.99.0.0/16.
const lanBits = 16

// OnLAN is a machine's address with the length of the LAN's prefix.
func OnLAN(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, lanBits) }
