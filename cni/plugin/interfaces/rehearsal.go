package interfaces

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostport"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/isolation"
	"github.com/trivet-node/trivet/cni/macspoof"
	"github.com/trivet-node/trivet/cni/masquerade"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/sourceguard"
)

// nobody is the attachment that STATUS writes rules for.
var nobody = ipam.Owner{ContainerID: "status", IfName: "eth0"}

// rehearse returns an error when what the configuration asks for cannot be written.
func (b Bridge) rehearse(c *call.Call, n *conf.Network) error {
	var steps []func() error
	if n.MACSpoofCheck {
		g := macspoof.Guard{Owner: nobody, Veth: "status", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
		steps = append(steps, g.Ensure)
	}
	if n.PerPod != "" {
		steps = append(steps, func() error { return rehearseMasquerade(c, n.IPAM, n.PerPod) })
	}
	if !n.Ingress.IsOpen() {
		steps = append(steps, func() error { return isolation.Ensure(n.NAT.Bridge, n.Ingress) })
	}
	if n.Bridge.VLANs.Wanted() {
		steps = append(steps, bridge.RehearseVLANs)
	}
	if n.SourceGuard {
		steps = append(steps, rehearseSourceGuard)
	}

	// A kernel that has the rules knows all that is in them. Missing rules are no reason to fail: the next
	// Add writes them.
	if n.NAT.Masquerade || b.HostPorts {
		network := hostport.Network{NAT: n.NAT}
		there, err := network.Usable()
		if err != nil {
			return err
		}
		if !there {
			steps = append(steps, network.Prepare)
		}
	}

	if len(steps) == 0 {
		return nil
	}

	return call.Rehearse(func() error {
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
}

func rehearseSourceGuard() error {
	if err := sourceguard.Rehearse(); err != nil {
		return fmt.Errorf("sourceGuard: %w", err)
	}
	return nil
}

// rehearseMasquerade masquerades an address of each family that the configuration has addresses of; of IPv4
// where another plugin gives them.
func rehearseMasquerade(c *call.Call, i *conf.IPAM, b masquerade.Backend) error {
	p := masquerade.Pod{Network: c.Name, Owner: nobody}
	if i != nil {
		p.Addresses = i.Subnets
	}
	if len(p.Addresses) == 0 {
		p.Addresses = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}
	}
	return p.Ensure(b)
}
