package interfaces

import (
	"net/netip"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// setMTU has pods of trivet-cni send no larger packets than can leave the host, where the configuration does
// not say how large they are. Upstream's bridge leaves that to the kernel.
func (b Bridge) setMTU(host *rtnl.Conn, n *conf.Network) error {
	if !b.HostPorts || n.Bridge.MTU != 0 {
		return nil
	}
	mtu, err := uplinkMTU(host)
	if err == nil && mtu <= conf.MaxMTU {
		n.Bridge.MTU = mtu
	}
	return err
}

// outside are addresses for documentation, which nobody has: by the default route, they are reached.
var outside = []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8:ffff::1")}

// uplinkMTU returns the MTU of the interface that the host's default route leaves by, 0 if there is none.
func uplinkMTU(host *rtnl.Conn) (int, error) {
	const loopback = 1
	for _, a := range outside {
		index, err := host.InterfaceTo(a)
		if err != nil || index <= loopback {
			// There is no such route, or not this family.
			continue
		}

		link, err := host.LinkByIndex(index)
		if err != nil {
			return 0, err
		}
		return link.MTU, nil
	}

	return 0, nil
}
