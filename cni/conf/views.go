package conf

import (
	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// BridgeConfig is the network as package bridge sees it.
func (n *Network) BridgeConfig() bridge.Config {
	return bridge.Config{
		Network:    n.Name,
		Name:       n.Bridge,
		MTU:        n.MTU,
		IsGateway:  n.IsGateway,
		Force:      n.ForceAddress,
		Promisc:    n.Promiscuous,
		Port:       rtnl.Port{Hairpin: n.Hairpin, Isolated: n.PortIsolation},
		HostRouted: n.HostRouted,
		DAD:        n.DAD,
	}
}

// NATConfig is the network as package hostnat sees it.
func (n *Network) NATConfig() hostnat.Config {
	c := hostnat.Config{
		Network:    n.Name,
		Bridge:     n.Bridge,
		Masquerade: n.IPMasq,
		NoMasq:     n.NoMasq,
		SNAT:       n.SNAT,
		HostRouted: n.HostRouted,
		Ports:      n.Role == TrivetCNI,
	}
	if n.IPAM != nil {
		c.Subnets = n.IPAM.Subnets
	}

	return c
}
