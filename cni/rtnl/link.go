package rtnl

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// vethInfoPeer is VETH_INFO_PEER of <linux/veth.h>: the peer's ifinfomsg and attributes.
const vethInfoPeer = 1

// Link is what a pod's network needs to know of an interface.
type Link struct {
	Index, Master int
	Peer          int // of a veth: the index of the other end, in its namespace
	Name, Alias   string
	Kind          string // "bridge", "veth", ""
	MAC           net.HardwareAddr
	MTU           int
	Up            bool // IFF_UP: wanted up, with or without carrier
	Group         uint32
	Port          *Port // bridge port flags, nil for what is no port
}

// Port are the flags of a bridge port.
type Port struct{ Hairpin, Isolated bool }

func ifinfo(index int, flags, change uint32) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	native.PutUint32(header[4:], uint32(index))
	native.PutUint32(header[8:], flags)
	native.PutUint32(header[12:], change)
	return header
}

// LinkByName reads one interface; Gone(err) when there is none of that name.
func (c *Conn) LinkByName(name string) (Link, error) {
	var link Link
	m := newMessage("look up interface "+name, unix.RTM_GETLINK, 0, ifinfo(0, 0, 0)).String(
		unix.IFLA_IFNAME,
		name,
	)
	err := c.Get(m, func(_ uint16, body []byte) { link = parseLink(body) })
	return link, err
}

// LinkByIndex reads one interface; Gone(err) when there is none of that index.
func (c *Conn) LinkByIndex(index int) (Link, error) {
	var link Link
	m := newMessage(fmt.Sprintf("look up interface %d", index), unix.RTM_GETLINK, 0, ifinfo(index, 0, 0))
	err := c.Get(m, func(_ uint16, body []byte) { link = parseLink(body) })
	return link, err
}

// Links lists the interfaces of the namespace.
func (c *Conn) Links() ([]Link, error) {
	var links []Link
	err := c.Dump(newMessage("list interfaces",
		unix.RTM_GETLINK, 0, ifinfo(0, 0, 0)), func(kind uint16, body []byte) {
		if kind == unix.RTM_NEWLINK {
			links = append(links, parseLink(body))
		}
	})
	return links, err
}

func parseLink(body []byte) Link {
	if len(body) < unix.SizeofIfInfomsg {
		return Link{}
	}

	l := Link{Index: int(native.Uint32(body[4:])), Up: native.Uint32(body[8:])&unix.IFF_UP != 0}
	Attributes(body[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.Name = text(value)
		case kind == unix.IFLA_IFALIAS:
			l.Alias = text(value)
		case kind == unix.IFLA_ADDRESS:
			l.MAC = append(net.HardwareAddr(nil), value...)
		case kind == unix.IFLA_LINKINFO:
			l.parseInfo(value)
		case len(value) < 4:
		case kind == unix.IFLA_MTU:
			l.MTU = int(native.Uint32(value))
		case kind == unix.IFLA_LINK:
			l.Peer = int(native.Uint32(value))
		case kind == unix.IFLA_MASTER:
			l.Master = int(native.Uint32(value))
		case kind == unix.IFLA_GROUP:
			l.Group = native.Uint32(value)
		}
	})

	return l
}

func (l *Link) parseInfo(info []byte) {
	isPort := false
	var port Port
	Attributes(info, func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = text(value)
		case unix.IFLA_INFO_SLAVE_KIND:
			isPort = text(value) == "bridge"
		case unix.IFLA_INFO_SLAVE_DATA:
			Attributes(value, func(kind uint16, value []byte) {
				switch on := len(value) == 1 && value[0] != 0; kind {
				case unix.IFLA_BRPORT_MODE:
					port.Hairpin = on
				case unix.IFLA_BRPORT_ISOLATED:
					port.Isolated = on
				}
			})
		}
	})
	if isPort {
		l.Port = &port
	}
}

// NewBridge creates a bridge that is up. Its MAC is explicit, so that it does not follow its ports'.
func NewBridge(name string, mac net.HardwareAddr, mtu int) *Message {
	m := newMessage(
		"create bridge "+name,
		unix.RTM_NEWLINK,
		Create|Excl,
		ifinfo(0, unix.IFF_UP, unix.IFF_UP),
	).
		String(unix.IFLA_IFNAME, name).Bytes(unix.IFLA_ADDRESS, mac)
	if mtu > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
	return m.Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, "bridge").End()
}

// Veth describes a pair: one end in this namespace, a port of the bridge Master; the other in the namespace
// PeerNamespace.
type Veth struct {
	Name          string
	Master        int
	MTU           int // 0: the kernel's default
	MAC           net.HardwareAddr
	PeerName      string
	PeerMAC       net.HardwareAddr
	PeerNamespace int // file descriptor
}

// NewVeth creates the pair with this end up and attached. The far end comes up in its own namespace (asked
// for here, the kernel opens it before the pair is tied and answers ENOTCONN). A veth uses one queue unless
// more are asked for; saying so keeps the kernel from making one for each processor first, with files in
// /sys, and removing them again.
func NewVeth(v Veth) *Message {
	m := newMessage(
		fmt.Sprintf("create veth %s with peer %s", v.Name, v.PeerName),
		unix.RTM_NEWLINK,
		Create|Excl,
		ifinfo(0, unix.IFF_UP, unix.IFF_UP),
	).
		String(unix.IFLA_IFNAME, v.Name).Bytes(unix.IFLA_ADDRESS, v.MAC).Uint32(
		unix.IFLA_MASTER,
		uint32(v.Master),
	).
		Uint32(unix.IFLA_NUM_TX_QUEUES, 1).Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
	if v.MTU > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
	}

	m.Nest(unix.IFLA_LINKINFO).String(
		unix.IFLA_INFO_KIND,
		"veth",
	).Nest(unix.IFLA_INFO_DATA).Nest(vethInfoPeer)

	m.Raw(ifinfo(0, 0, 0)).String(unix.IFLA_IFNAME, v.PeerName).Bytes(unix.IFLA_ADDRESS, v.PeerMAC).Uint32(
		unix.IFLA_NET_NS_FD,
		uint32(v.PeerNamespace),
	).
		Uint32(unix.IFLA_NUM_TX_QUEUES, 1).Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
	if v.MTU > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(v.MTU))
	}

	return m.End().End().End()
}

// Describe sets the alias of an interface (ip link show prints it).
func Describe(name, alias string) *Message {
	return newMessage("describe interface "+name, unix.RTM_NEWLINK, 0, ifinfo(0, 0, 0)).
		String(unix.IFLA_IFNAME, name).String(unix.IFLA_IFALIAS, alias)
}

// SetPort sets the flags of a bridge port.
func SetPort(name string, p Port) *Message {
	return newMessage("set bridge port flags of "+name, unix.RTM_NEWLINK, 0, ifinfo(0, 0, 0)).String(
		unix.IFLA_IFNAME,
		name,
	).
		Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_SLAVE_KIND, "bridge").Nest(unix.IFLA_INFO_SLAVE_DATA).
		Uint8(unix.IFLA_BRPORT_MODE, bit(p.Hairpin)).Uint8(
		unix.IFLA_BRPORT_ISOLATED,
		bit(p.Isolated),
	).End().End()
}

func bit(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}

// SetUp brings an interface up.
func SetUp(index int) *Message {
	return newMessage(
		fmt.Sprintf("set interface %d up", index),
		unix.RTM_NEWLINK,
		0,
		ifinfo(index, unix.IFF_UP, unix.IFF_UP),
	)
}

// SetPromiscuous makes an interface take every frame.
func SetPromiscuous(index int) *Message {
	return newMessage(
		fmt.Sprintf("set interface %d promiscuous", index),
		unix.RTM_NEWLINK,
		0,
		ifinfo(index, unix.IFF_PROMISC, unix.IFF_PROMISC),
	)
}

// SetMAC sets the address of an interface. A bridge keeps it from then on, whatever its ports have.
func SetMAC(index int, mac net.HardwareAddr) *Message {
	return newMessage(fmt.Sprintf("set MAC address of interface %d", index), unix.RTM_NEWLINK, 0,
		ifinfo(index, 0, 0)).
		Bytes(unix.IFLA_ADDRESS, mac)
}

// SetMTU sets the largest packet of an interface.
func SetMTU(index, mtu int) *Message {
	return newMessage(
		fmt.Sprintf("set mtu of interface %d to %d", index, mtu),
		unix.RTM_NEWLINK,
		0,
		ifinfo(index, 0, 0),
	).Uint32(unix.IFLA_MTU, uint32(mtu))
}

// Discard cuts an interface off: down, no port of any bridge, in the given group. Unlike DeleteLink it does
// not wait for the kernel's RCU callbacks (16–30 ms), so it suits a link whose other end is about to die with
// its namespace.
func Discard(name string, group uint32) *Message {
	return newMessage("discard interface "+name, unix.RTM_NEWLINK, 0, ifinfo(0, 0, unix.IFF_UP)).
		String(unix.IFLA_IFNAME, name).Uint32(unix.IFLA_MASTER, 0).Uint32(unix.IFLA_GROUP, group)
}

// DeleteLink deletes an interface by name.
func DeleteLink(name string) *Message {
	return newMessage("delete interface "+name, unix.RTM_DELLINK, 0, ifinfo(0, 0, 0)).String(
		unix.IFLA_IFNAME,
		name,
	)
}

// DeleteIfThere deletes an interface; one that is not there is success.
func (c *Conn) DeleteIfThere(name string) error {
	if err := c.Must(DeleteLink(name)); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}
