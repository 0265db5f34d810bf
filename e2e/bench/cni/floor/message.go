package main

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// conn is a socket of netlink.
type conn struct {
	fd     int
	buffer [4096]byte
	// link is the index of the interface that the kernel has told last.
	link uint32
}

func open(protocol int) (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	return &conn{fd: fd}, err
}

// do sends messages in one write and returns the last error among the kernel's answers to them, of which it
// asks for that to the last message.
func (c *conn) do(messages ...[]byte) error {
	for i, m := range messages {
		native.PutUint32(m[8:], uint32(i+1))
	}
	last := messages[len(messages)-1]
	native.PutUint16(last[6:], native.Uint16(last[6:])|unix.NLM_F_ACK)
	return c.exchange(slices.Concat(messages...), uint32(len(messages)))
}

// whole is the number of the message that a transaction begins with. What refuses all of it answers that, and
// nothing else.
const whole = 0

// exchange sends messages and reads until the one with a number is answered, or all of them are refused.
func (c *conn) exchange(messages []byte, last uint32) (failure error) {
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(c.fd, messages, 0, to); err != nil {
		return err
	}

	for done := false; !done; {
		n, _, err := unix.Recvfrom(c.fd, c.buffer[:], 0)
		if err != nil {
			return err
		}
		for data := c.buffer[:n]; len(data) > unix.NLMSG_HDRLEN+8; {
			body := data[unix.NLMSG_HDRLEN:]
			switch native.Uint16(data[4:]) {
			case unix.RTM_NEWLINK:
				c.link = native.Uint32(body[4:])
			case unix.NLMSG_ERROR:
				number := native.Uint32(data[8:])
				done = done || number == last || number == whole
				if errno := -int32(native.Uint32(body)); errno != 0 {
					failure = unix.Errno(errno)
				}
			}
			data = data[min(len(data), align(int(native.Uint32(data)))):]
		}
	}

	return failure
}

// index returns that of an interface.
func (c *conn) index(name string) (uint32, error) {
	err := c.do(message(unix.RTM_GETLINK, 0, ifinfo(0, 0), ifname(name)))
	return c.link, err
}

// Flags of a request that makes something.
const (
	create    = unix.NLM_F_CREATE
	exclusive = unix.NLM_F_CREATE | unix.NLM_F_EXCL
)

// message is a request: the header of its family, then attributes.
func message(kind, flags uint16, parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	m := native.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	m = native.AppendUint16(m, kind)
	m = native.AppendUint16(m, flags|unix.NLM_F_REQUEST)
	m = append(m, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(m, body...)
}

func attribute(kind uint16, values ...[]byte) []byte {
	value := slices.Concat(values...)
	a := native.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	a = native.AppendUint16(a, kind)
	a = append(a, value...)
	return append(a, make([]byte, align(len(a))-len(a))...)
}

func align(size int) int { return (size + 3) &^ 3 }

func number(kind uint16, n uint32) []byte { return attribute(kind, native.AppendUint32(nil, n)) }

func text(kind uint16, s string) []byte { return attribute(kind, append([]byte(s), 0)) }

func ifname(s string) []byte { return text(unix.IFLA_IFNAME, s) }

// ifinfo is a struct ifinfomsg that sets or clears IFF_UP, if change has it.
func ifinfo(index, change uint32) []byte {
	header := make([]byte, unix.SizeofIfInfomsg)
	native.PutUint32(header[4:], index)
	native.PutUint32(header[12:], change)
	return header
}

func setUp(index uint32) []byte {
	header := ifinfo(index, unix.IFF_UP)
	native.PutUint32(header[8:], unix.IFF_UP)
	return message(unix.RTM_NEWLINK, 0, header)
}

func newBridge(name string) []byte {
	kind := attribute(unix.IFLA_LINKINFO, text(unix.IFLA_INFO_KIND, "bridge"))
	return message(unix.RTM_NEWLINK, exclusive, ifinfo(0, 0), ifname(name), kind)
}

// newVeth makes a port of the bridge, whose other end is eth0 of the namespace there.
func newVeth(name string, bridge uint32, there int) []byte {
	// VETH_INFO_PEER of linux/veth.h.
	const peer = 1
	up := ifinfo(0, unix.IFF_UP)
	native.PutUint32(up[8:], unix.IFF_UP)

	// Without it the kernel makes a queue for each processor, and removes it again.
	queues := slices.Concat(number(unix.IFLA_NUM_TX_QUEUES, 1), number(unix.IFLA_NUM_RX_QUEUES, 1))
	namespace := number(unix.IFLA_NET_NS_FD, uint32(there))
	other := attribute(peer, ifinfo(0, 0), ifname("eth0"), namespace, queues)
	kind := attribute(unix.IFLA_LINKINFO,
		text(unix.IFLA_INFO_KIND, "veth"), attribute(unix.IFLA_INFO_DATA, other))
	master := number(unix.IFLA_MASTER, bridge)
	return message(unix.RTM_NEWLINK, exclusive, up, ifname(name), master, queues, kind)
}

func setAlias(name string) []byte {
	return message(unix.RTM_NEWLINK, 0, ifinfo(0, 0), ifname(name), text(unix.IFLA_IFALIAS, name))
}

func setHairpin(name string) []byte {
	port := attribute(unix.IFLA_LINKINFO, text(unix.IFLA_INFO_SLAVE_KIND, "bridge"),
		attribute(unix.IFLA_INFO_SLAVE_DATA, attribute(unix.IFLA_BRPORT_MODE, []byte{1})))
	return message(unix.RTM_NEWLINK, 0, ifinfo(0, 0), ifname(name), port)
}

func deleteLink(name string) []byte {
	return message(unix.RTM_DELLINK, 0, ifinfo(0, 0), ifname(name))
}

// discard takes an interface down, out of its bridge, and marks it.
func discard(name string) []byte {
	return message(unix.RTM_NEWLINK, 0, ifinfo(0, unix.IFF_UP),
		ifname(name), number(unix.IFLA_MASTER, 0), number(unix.IFLA_GROUP, 1))
}

func newAddress(index uint32, a [4]byte) []byte {
	header := []byte{unix.AF_INET, prefixLength, 0, 0}
	return message(unix.RTM_NEWADDR, exclusive, native.AppendUint32(header, index),
		attribute(unix.IFA_LOCAL, a[:]), attribute(unix.IFA_ADDRESS, a[:]))
}

// newDefaultRoute leads through the gateway.
func newDefaultRoute(index uint32) []byte {
	header := make([]byte, unix.SizeofRtMsg)
	copy(header, []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, 0, unix.RTN_UNICAST})
	return message(unix.RTM_NEWROUTE, create, header,
		attribute(unix.RTA_GATEWAY, gateway[:]), number(unix.RTA_OIF, index))
}
