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

// Wanted reports whether there are any.
func (v VLANs) Wanted() bool { return v.ID != 0 || len(v.Trunk) > 0 }

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
	if !v.Wanted() {
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

// RehearseVLANs makes a bridge that looks at VLANs, in a network namespace that ends with it.
func RehearseVLANs() error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	const name = "status"
	if err := host.Must(rtnl.NewBridge(name, hashMAC(name, nil), 0)); err != nil {
		return err
	}
	return explainVLAN(host.Must(rtnl.SetVLANFiltering(name)))
}

// GatewayLink is the name of the interface that has the gateway's addresses: the bridge, or the host's own
// port of it in the VLAN of the pods.
func (c Config) GatewayLink() string {
	if c.VLANs.ID == 0 {
		return c.Name
	}
	return fmt.Sprintf("%s.%d", c.Name, c.VLANs.ID)
}

// ofGateway returns the VLANs of the host's own port.
func (v VLANs) ofGateway() VLANs { return VLANs{ID: v.ID, KeepDefault: v.KeepDefault} }

// ensureGatewayLink returns the interface that has the gateway's addresses. One that is there already may be
// of a call that was killed before it had put the port into its VLAN.
func ensureGatewayLink(host *rtnl.Conn, c Config, bridge rtnl.Link) (rtnl.Link, error) {
	name := c.GatewayLink()
	if name == c.Name {
		return bridge, nil
	}

	link, err := host.LinkByName(name)
	made := netlink.IsNotExist(err)
	if made {
		link, err = makeGatewayLink(host, c, bridge)
	}
	if err != nil {
		return link, err
	}

	if err := ensureGatewayPort(host, c, link); err != nil {
		if made {
			err = errors.Join(err, host.EnsureNoLink(name))
		}
		return link, err
	}

	if !link.Up {
		err = host.Must(rtnl.SetUp(link.Index))
	}

	return link, err
}

// makeGatewayLink makes the pair; another process may do it at the same time.
func makeGatewayLink(host *rtnl.Conn, c Config, bridge rtnl.Link) (link rtnl.Link, err error) {
	name := c.GatewayLink()
	err = host.Must(rtnl.NewVeth(rtnl.Veth{
		Name:     HostName(c.Name, ipam.Owner{IfName: name}),
		Master:   bridge.Index,
		MTU:      bridge.MTU,
		MAC:      hashMAC("port "+name, nil),
		PeerName: name,
		PeerMAC:  hashMAC("gateway "+name, nil),
	}))
	if err != nil && !netlink.IsExist(err) {
		return link, err
	}
	return host.LinkByName(name)
}

// gatewayPort returns the port of the bridge behind the interface that has the gateway's addresses. There is
// none when an administrator has made that one of another kind.
func gatewayPort(host *rtnl.Conn, link rtnl.Link) (port rtnl.Link, ok bool, err error) {
	if link.Kind != rtnl.KindVeth {
		return port, false, nil
	}
	port, err = host.LinkByIndex(link.Peer)
	return port, true, err
}

func ensureGatewayPort(host *rtnl.Conn, c Config, link rtnl.Link) error {
	port, ok, err := gatewayPort(host, link)
	if err != nil || !ok {
		return err
	}

	if !port.Up {
		if err := host.Must(rtnl.SetUp(port.Index)); err != nil {
			return err
		}
	}

	// Set only where it is missing: while it is being set, the port is in no VLAN.
	if checkVLANs(host, c.VLANs.ofGateway(), port) == nil {
		return nil
	}

	return setVLANs(host, c.VLANs.ofGateway(), port.Name)
}

// checkGatewayPort returns an error unless the port is in the VLAN of the pods.
func checkGatewayPort(host *rtnl.Conn, c Config, link rtnl.Link) error {
	port, ok, err := gatewayPort(host, link)
	if err != nil || !ok {
		return err
	}
	if !port.Up {
		return fmt.Errorf("interface %s is down", port.Name)
	}
	return checkVLANs(host, c.VLANs.ofGateway(), port)
}

// checkVLANs returns an error unless a port is in its VLANs.
func checkVLANs(host *rtnl.Conn, v VLANs, port rtnl.Link) error {
	if !v.Wanted() {
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
