package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// KindVXLAN is the kind of an interface whose frames travel in UDP (RFC 7348).
const KindVXLAN = "vxlan"

// VXLAN is what such an interface is made with and never changes.
type VXLAN struct {
	// ID is the network identifier (VNI), of 24 bits.
	ID uint32
	// Local is the address of the host that packets are sent from. Remotes are of its family.
	Local netip.Addr
	// Port is the UDP port, here and at the remotes.
	Port uint16
	// Learning says that remotes are taken from the packets that come in.
	Learning bool
}

// NewVXLAN creates an interface that is down. The kernel needs module vxlan.
func NewVXLAN(name string, mac net.HardwareAddr, mtu int, v VXLAN) *netlink.Message {
	op := "create interface " + name + " (module vxlan)"
	m := netlink.NewMessage(op, unix.RTM_NEWLINK, netlink.Create|netlink.Excl, ifinfo(0, 0, 0)).
		String(unix.IFLA_IFNAME, name).
		Bytes(unix.IFLA_ADDRESS, mac)
	appendMTU(m, mtu)
	m.Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, KindVXLAN)
	m.Nest(unix.IFLA_INFO_DATA).
		Uint32(unix.IFLA_VXLAN_ID, v.ID).
		Bytes(v.localAttribute(), v.Local.AsSlice()).
		Bytes(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, v.Port)).
		Uint8(unix.IFLA_VXLAN_LEARNING, bit(v.Learning))
	return m.End().End()
}

func (v VXLAN) localAttribute() uint16 {
	if v.Local.Is4() {
		return unix.IFLA_VXLAN_LOCAL
	}
	return unix.IFLA_VXLAN_LOCAL6
}

// WithoutLinkLocal keeps an interface that is down from getting a link-local address of IPv6 with the way up.
func WithoutLinkLocal(name string) *netlink.Message {
	// IN6_ADDR_GEN_MODE_NONE of <linux/if_link.h>.
	const none = 1
	return change("keep interface "+name+" without a link-local address", name).
		Nest(unix.IFLA_AF_SPEC).
		Nest(unix.AF_INET6).Uint8(unix.IFLA_INET6_ADDR_GEN_MODE, none).End().
		End()
}

// parseVXLAN reads the attributes of IFLA_INFO_DATA.
func parseVXLAN(data []byte) (v VXLAN) {
	netlink.Attributes(data, func(kind uint16, value []byte) {
		switch {
		case kind == unix.IFLA_VXLAN_LOCAL || kind == unix.IFLA_VXLAN_LOCAL6:
			v.Local, _ = netip.AddrFromSlice(value)
		case kind == unix.IFLA_VXLAN_ID && len(value) == 4:
			v.ID = native.Uint32(value)
		case kind == unix.IFLA_VXLAN_PORT && len(value) == 2:
			v.Port = binary.BigEndian.Uint16(value)
		case kind == unix.IFLA_VXLAN_LEARNING && len(value) == 1:
			v.Learning = value[0] != 0
		}
	})
	return v
}

// AddRemote sends frames for a MAC address, which leave by a VXLAN interface, to the host of an address, and
// to no other one.
func AddRemote(index int, r Neighbour) *netlink.Message {
	op := fmt.Sprintf("add forwarding entry %s dst %s", r.hardware(), r.Address)
	return r.message(op, unix.RTM_NEWNEIGH, netlink.Create|netlink.Replace, remoteHeader(index))
}

// DeleteRemote removes what AddRemote has added; IsNotExist(err) when there is no such entry.
func DeleteRemote(index int, r Neighbour) *netlink.Message {
	op := fmt.Sprintf("delete forwarding entry %s dst %s", r.hardware(), r.Address)
	return r.message(op, unix.RTM_DELNEIGH, 0, remoteHeader(index))
}

func remoteHeader(index int) []byte {
	header := ndmsg(unix.AF_BRIDGE, index, unix.NUD_NOARP|unix.NUD_PERMANENT)
	header[10] = unix.NTF_SELF
	return header
}

// Remotes lists the forwarding entries of a VXLAN interface that have one.
func (c *Conn) Remotes(index int) (all []Neighbour, err error) {
	op := fmt.Sprintf("list forwarding entries of interface %d", index)
	m := netlink.NewMessage(op, unix.RTM_GETNEIGH, 0, ndmsg(unix.AF_BRIDGE, index, 0))
	err = c.Dump(m, func(_ uint16, body []byte) {
		if n, ok := parseNeighbour(body, index); ok {
			all = append(all, n)
		}
	})
	return all, err
}
