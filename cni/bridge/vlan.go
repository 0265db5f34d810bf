package bridge

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// VLANs are those that pods' ports are in. The zero value leaves the bridge without VLANs.
type VLANs struct {
	// ID is that of packets without a tag; 0 for none. The gateway's addresses are in it.
	ID uint16
	// Trunk are those whose packets keep their tag.
	Trunk []rtnl.VLAN
	// KeepDefault leaves the port in the VLAN that the bridge puts every port into.
	KeepDefault bool
}

func (v VLANs) wanted() bool { return v.ID != 0 || len(v.Trunk) > 0 }

// ofPort returns the VLANs of a port, in the order in which they are added. Without an ID the native one is
// 1.
func (v VLANs) ofPort() (all []rtnl.VLAN) {
	native := rtnl.VLAN{First: v.ID, Last: v.ID, Native: true}
	if v.ID != 0 {
		all = append(all, native)
	}
	all = append(all, v.Trunk...)
	if v.ID == 0 {
		native.First = 1
		native.Last = 1
		all = append(all, native)
	}
	return all
}

// setVLANs puts a port into its VLANs.
func setVLANs(host *rtnl.Conn, v VLANs, port string) error {
	if !v.wanted() {
		return nil
	}

	link, err := host.LinkByName(port)
	if err != nil {
		return err
	}

	var changes []*netlink.Message
	if !v.KeepDefault {
		have, err := host.VLANs(link.Index)
		if err != nil {
			return err
		}
		for _, vlan := range have {
			changes = append(changes, rtnl.DeleteVLAN(link.Index, vlan))
		}
	}

	for _, vlan := range v.ofPort() {
		changes = append(changes, rtnl.AddVLAN(link.Index, vlan))
	}

	return explainVLAN(host.Must(changes...))
}

// explainVLAN says what a kernel lacks that refuses VLANs on a bridge.
func explainVLAN(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) {
		const option = "CONFIG_BRIDGE_VLAN_FILTERING"
		return fmt.Errorf("the kernel is built without VLANs on bridges (%s): %w", option, err)
	}
	return err
}

// GatewayLink is the name of the interface that has the gateway's addresses: the bridge, or the host's own
// port of it in the VLAN of the pods.
func (c Config) GatewayLink() string {
	if c.VLANs.ID == 0 {
		return c.Name
	}
	return fmt.Sprintf("%s.%d", c.Name, c.VLANs.ID)
}

// ensureGatewayLink returns the interface that has the gateway's addresses.
func ensureGatewayLink(host *rtnl.Conn, c Config, bridge rtnl.Link) (rtnl.Link, error) {
	name := c.GatewayLink()
	if name == c.Name {
		return bridge, nil
	}

	link, err := host.LinkByName(name)
	if !netlink.IsNotExist(err) {
		return link, err
	}

	port := HostName(c.Name, ipam.Owner{IfName: name})
	err = host.Must(rtnl.NewVeth(rtnl.Veth{
		Name:     port,
		Master:   bridge.Index,
		MTU:      bridge.MTU,
		MAC:      hashMAC("port "+name, nil),
		PeerName: name,
		PeerMAC:  hashMAC("gateway "+name, nil),
	}))
	if err != nil && !netlink.IsExist(err) {
		return link, err
	}

	own := VLANs{ID: c.VLANs.ID, KeepDefault: c.VLANs.KeepDefault}
	if err := setVLANs(host, own, port); err != nil {
		return link, errors.Join(err, host.EnsureNoLink(port))
	}

	if link, err = host.LinkByName(name); err == nil {
		err = host.Must(rtnl.SetUp(link.Index))
	}

	return link, err
}

// checkVLANs returns an error unless a port is in its VLANs.
func checkVLANs(host *rtnl.Conn, v VLANs, port rtnl.Link) error {
	if !v.wanted() {
		return nil
	}

	have, err := host.VLANs(port.Index)
	if err != nil {
		return err
	}

	in := map[uint16]bool{}
	for _, vlan := range have {
		in[vlan.First] = true
	}

	for _, vlan := range v.ofPort() {
		for id := vlan.First; id <= vlan.Last; id++ {
			if !in[id] {
				return fmt.Errorf("port %s is not in VLAN %d", port.Name, id)
			}
		}
	}

	return nil
}
