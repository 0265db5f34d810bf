package rtnl

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Kinds of interfaces (IFLA_INFO_KIND).
const (
	KindBridge = "bridge"
	KindVeth   = "veth"
	KindIFB    = "ifb"
)

// Link is an interface as the kernel describes it.
type Link struct {
	Index int
	Name  string
	Alias string
	// Kind is IFLA_INFO_KIND, "" for a physical interface.
	Kind string
	MAC  net.HardwareAddr
	MTU  int
	// Up is IFF_UP: the interface is wanted up, with or without carrier.
	Up bool
	// Master is the index of the bridge that the interface is a port of, or 0.
	Master int
	// Peer is the index of a veth's other end, in the namespace where that is.
	Peer  int
	Group uint32
	// Promiscuity counts who wants the interface to take every frame.
	Promiscuity uint32
	// AllMulticast is IFF_ALLMULTI.
	AllMulticast bool
	// TxQueueLength is how many packets may wait to be sent.
	TxQueueLength int
	// Port are the flags of a bridge port; nil for an interface that is not one.
	Port *Port
	// VXLAN is that of an interface of this kind.
	VXLAN *VXLAN
}

// Port are the flags of a bridge port.
type Port struct{ Hairpin, Isolated bool }

// ifinfo returns a struct ifinfomsg.
func ifinfo(index int, flags, change uint32) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	native.PutUint32(header[4:], uint32(index))
	native.PutUint32(header[8:], flags)
	native.PutUint32(header[12:], change)
	return header
}

// LinkByName reads one interface; IsNotExist(err) when there is none of that name.
func (c *Conn) LinkByName(name string) (Link, error) {
	m := netlink.NewMessage("look up interface "+name, unix.RTM_GETLINK, 0, ifinfo(0, 0, 0))
	return c.link(m.String(unix.IFLA_IFNAME, name))
}

// LinkByIndex reads one interface; IsNotExist(err) when there is none of that index.
func (c *Conn) LinkByIndex(index int) (Link, error) {
	op := fmt.Sprintf("look up interface %d", index)
	return c.link(netlink.NewMessage(op, unix.RTM_GETLINK, 0, ifinfo(index, 0, 0)))
}

// withoutStatistics is RTEXT_FILTER_SKIP_STATS of <linux/rtnetlink.h>: counters that nobody here reads are
// three quarters of what the kernel would say.
const withoutStatistics = 1 << 3

func (c *Conn) link(m *netlink.Message) (l Link, err error) {
	m.Uint32(unix.IFLA_EXT_MASK, withoutStatistics)
	err = c.Get(m, func(_ uint16, body []byte) { l = parseLink(body) })
	return l, err
}

// Links lists the interfaces of the namespace.
func (c *Conn) Links() ([]Link, error) {
	m := netlink.NewMessage("list interfaces", unix.RTM_GETLINK, 0, ifinfo(0, 0, 0)).
		Uint32(unix.IFLA_EXT_MASK, withoutStatistics)
	var links []Link
	err := c.Dump(m, func(kind uint16, body []byte) {
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

	l := Link{
		Index: int(native.Uint32(body[4:])),
		Up:    native.Uint32(body[8:])&unix.IFF_UP != 0,

		AllMulticast: native.Uint32(body[8:])&unix.IFF_ALLMULTI != 0,
	}

	// Behind the case for the size, values are numbers of 32 bits.
	netlink.Attributes(body[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.Name = netlink.Text(value)
		case kind == unix.IFLA_IFALIAS:
			l.Alias = netlink.Text(value)
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
		case kind == unix.IFLA_PROMISCUITY:
			l.Promiscuity = native.Uint32(value)
		case kind == unix.IFLA_TXQLEN:
			l.TxQueueLength = int(native.Uint32(value))
		}
	})

	return l
}

// parseInfo reads the nested attributes that depend on the kind of the interface and of its master.
func (l *Link) parseInfo(info []byte) {
	var masterKind string
	var port Port
	var own []byte
	netlink.Attributes(info, func(kind uint16, value []byte) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			l.Kind = netlink.Text(value)
		case unix.IFLA_INFO_DATA:
			own = value
		case unix.IFLA_INFO_SLAVE_KIND:
			masterKind = netlink.Text(value)
		case unix.IFLA_INFO_SLAVE_DATA:
			port = parsePort(value)
		}
	})
	if masterKind == KindBridge {
		l.Port = &port
	}
	if l.Kind == KindVXLAN {
		v := parseVXLAN(own)
		l.VXLAN = &v
	}
}

func parsePort(data []byte) (p Port) {
	netlink.Attributes(data, func(kind uint16, value []byte) {
		set := len(value) == 1 && value[0] != 0
		switch kind {
		case unix.IFLA_BRPORT_MODE:
			p.Hairpin = set
		case unix.IFLA_BRPORT_ISOLATED:
			p.Isolated = set
		}
	})
	return p
}

// create begins the request for a new interface that is up.
func create(op, name string, mac net.HardwareAddr) *netlink.Message {
	const flags = netlink.Create | netlink.Excl
	return netlink.NewMessage(op, unix.RTM_NEWLINK, flags, ifinfo(0, unix.IFF_UP, unix.IFF_UP)).
		String(unix.IFLA_IFNAME, name).
		Bytes(unix.IFLA_ADDRESS, mac)
}

// NewBridge creates a bridge that is up; an mtu of 0 leaves the kernel's. Its MAC address is explicit, so
// that it does not follow those of its ports.
func NewBridge(name string, mac net.HardwareAddr, mtu int) *netlink.Message {
	m := create("create bridge "+name, name, mac)
	appendMTU(m, mtu)
	return m.Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, KindBridge).End()
}

// NewIFB creates an interface that takes what others are made to redirect to it (ifb), and is up.
func NewIFB(name string, mac net.HardwareAddr, mtu int) *netlink.Message {
	m := create("create interface "+name+" (module ifb)", name, mac)
	appendMTU(m, mtu)
	return m.Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, KindIFB).End()
}

// vethInfoPeer is VETH_INFO_PEER of <linux/veth.h>: the ifinfomsg and attributes of the peer.
const vethInfoPeer = 1

// Veth describes a pair: one end in this namespace, as a port of a bridge, and the other in another one.
type Veth struct {
	Name string
	// Master is the index of the bridge; 0 for none.
	Master int
	// MTU is that of both ends; 0 leaves the kernel's.
	MTU      int
	MAC      net.HardwareAddr
	PeerName string
	PeerMAC  net.HardwareAddr
	// PeerNamespace is a file descriptor of the peer's network namespace; 0 leaves it in this one.
	PeerNamespace int
}

// NewVeth creates the pair, with this end up and attached to the bridge. The other end is to be set up in its
// own namespace: set up here, the kernel would open it before the pair is tied, and answer ENOTCONN.
func NewVeth(v Veth) *netlink.Message {
	op := fmt.Sprintf("create veth %s with peer %s", v.Name, v.PeerName)
	m := create(op, v.Name, v.MAC)
	if v.Master != 0 {
		m.Uint32(unix.IFLA_MASTER, uint32(v.Master))
	}

	appendOneQueue(m)
	appendMTU(m, v.MTU)

	m.Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_KIND, KindVeth)
	m.Nest(unix.IFLA_INFO_DATA).Nest(vethInfoPeer)
	m.Raw(ifinfo(0, 0, 0)).
		String(unix.IFLA_IFNAME, v.PeerName).
		Bytes(unix.IFLA_ADDRESS, v.PeerMAC)
	if v.PeerNamespace != 0 {
		m.Uint32(unix.IFLA_NET_NS_FD, uint32(v.PeerNamespace))
	}

	appendOneQueue(m)
	appendMTU(m, v.MTU)

	return m.End().End().End()
}

// appendOneQueue asks for the number of queues that a veth uses unless more are asked for. Without it the
// kernel makes one for each processor first, with files in /sys, and removes them again.
func appendOneQueue(m *netlink.Message) {
	m.Uint32(unix.IFLA_NUM_TX_QUEUES, 1).Uint32(unix.IFLA_NUM_RX_QUEUES, 1)
}

func appendMTU(m *netlink.Message, mtu int) {
	if mtu > 0 {
		m.Uint32(unix.IFLA_MTU, uint32(mtu))
	}
}

// change begins a request that changes the interface of a name.
func change(op, name string) *netlink.Message {
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(0, 0, 0)).String(unix.IFLA_IFNAME, name)
}

// SetAlias sets the alias of an interface, which ip link show prints.
func SetAlias(name, alias string) *netlink.Message {
	return change("set alias of interface "+name, name).String(unix.IFLA_IFALIAS, alias)
}

// SetPort sets the alias and the flags of a bridge port.
func SetPort(name, alias string, p Port) *netlink.Message {
	return change("set alias and bridge port flags of "+name, name).
		String(unix.IFLA_IFALIAS, alias).
		Nest(unix.IFLA_LINKINFO).String(unix.IFLA_INFO_SLAVE_KIND, KindBridge).
		Nest(unix.IFLA_INFO_SLAVE_DATA).
		Uint8(unix.IFLA_BRPORT_MODE, bit(p.Hairpin)).
		Uint8(unix.IFLA_BRPORT_ISOLATED, bit(p.Isolated)).
		End().End()
}

func bit(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}

// SetUp brings an interface up.
func SetUp(index int) *netlink.Message {
	op := fmt.Sprintf("set interface %d up", index)
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(index, unix.IFF_UP, unix.IFF_UP))
}

// IgnoreRedirects has an interface ignore ICMP redirects of IPv4, if "all" does, too (sysctl
// accept_redirects). A file below /proc/sys/net is found the slower the more network namespaces there are:
// the kernel compares the entries of all of them.
func IgnoreRedirects(index int) *netlink.Message {
	// IPV4_DEVCONF_ACCEPT_REDIRECTS of <linux/ip.h>.
	const acceptRedirects = 4
	op := fmt.Sprintf("have interface %d ignore redirects", index)
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(index, 0, 0)).
		Nest(unix.IFLA_AF_SPEC).
		Nest(unix.AF_INET).
		Nest(unix.IFLA_INET_CONF).Uint32(acceptRedirects, 0).End().
		End().
		End()
}

// SetDown takes an interface down.
func SetDown(index int) *netlink.Message {
	return setFlag(fmt.Sprintf("set interface %d down", index), index, unix.IFF_UP, false)
}

// SetPromiscuous says whether an interface takes every frame.
func SetPromiscuous(index int, on bool) *netlink.Message {
	return setFlag(fmt.Sprintf("set interface %d promiscuous %t", index, on), index, unix.IFF_PROMISC, on)
}

// SetAllMulticast says whether an interface takes every multicast frame.
func SetAllMulticast(index int, on bool) *netlink.Message {
	op := fmt.Sprintf("set interface %d allmulticast %t", index, on)
	return setFlag(op, index, unix.IFF_ALLMULTI, on)
}

func setFlag(op string, index int, flag uint32, on bool) *netlink.Message {
	value := uint32(0)
	if on {
		value = flag
	}
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(index, value, flag))
}

// SetTxQueueLength sets how many packets may wait to be sent.
func SetTxQueueLength(index, length int) *netlink.Message {
	op := fmt.Sprintf("set transmit queue length of interface %d to %d", index, length)
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(index, 0, 0)).
		Uint32(unix.IFLA_TXQLEN, uint32(length))
}

// SetMAC sets the MAC address of an interface. A bridge keeps it from then on, whatever its ports have.
func SetMAC(index int, mac net.HardwareAddr) *netlink.Message {
	op := fmt.Sprintf("set MAC address of interface %d", index)
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(index, 0, 0)).Bytes(unix.IFLA_ADDRESS, mac)
}

// SetMTU sets the MTU of an interface.
func SetMTU(index, mtu int) *netlink.Message {
	op := fmt.Sprintf("set mtu of interface %d to %d", index, mtu)
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(index, 0, 0)).Uint32(unix.IFLA_MTU, uint32(mtu))
}

// Discard cuts an interface off: down, without a master, in the given group. Unlike DeleteLink it does not
// wait for the kernel's RCU callbacks (16 to 30 ms), so it suits a veth whose other end is about to go with
// its namespace.
func Discard(name string, group uint32) *netlink.Message {
	op := "discard interface " + name
	return netlink.NewMessage(op, unix.RTM_NEWLINK, 0, ifinfo(0, 0, unix.IFF_UP)).
		String(unix.IFLA_IFNAME, name).
		Uint32(unix.IFLA_MASTER, 0).
		Uint32(unix.IFLA_GROUP, group)
}

// DeleteLink deletes an interface; IsNotExist(err) when there is none of that name.
func DeleteLink(name string) *netlink.Message {
	op := "delete interface " + name
	return netlink.NewMessage(op, unix.RTM_DELLINK, 0, ifinfo(0, 0, 0)).String(unix.IFLA_IFNAME, name)
}

// DeleteIndex deletes the interface with an index. Unlike a name, that is not given to another one later.
func DeleteIndex(index int) *netlink.Message {
	op := fmt.Sprintf("delete interface %d", index)
	return netlink.NewMessage(op, unix.RTM_DELLINK, 0, ifinfo(index, 0, 0))
}

// EnsureNoLink deletes the interface of a name, if there is one.
func (c *Conn) EnsureNoLink(name string) error {
	err := c.Must(DeleteLink(name))
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
