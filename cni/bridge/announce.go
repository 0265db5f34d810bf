package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// announce makes everybody on the bridge send to the pod's new MAC address at once. Who talked to an address
// that another pod had before would otherwise go on sending to that pod's MAC address until the entry of its
// neighbour cache ages, 20 to 50 s later. IPv4 addresses have a MAC address made of them, which stays right.
func announce(host *rtnl.Conn, c Config, a Attachment, bridge rtnl.Link, mac net.HardwareAddr) error {
	var moved []netip.Addr
	var messages []*rtnl.Message
	for _, address := range a.Addresses {
		ip := address.Prefix.Addr()
		if ip.Is4() && a.MAC == nil {
			continue
		}

		moved = append(moved, ip)
		messages = append(messages, rtnl.SetNeighbour(bridge.Index, ip, mac))
	}

	if len(moved) == 0 {
		return nil
	}

	// else the host does not talk to pods
	if c.IsGateway {
		if err := host.Must(messages...); err != nil {
			return err
		}
	}

	// Other pods have the gateway alone for a neighbour; or the kernel announces the address when it has
	// checked it.
	if c.HostRouted || c.DAD {
		return nil
	}

	for _, ip := range moved {
		tell := advertise
		if ip.Is4() {
			tell = claim
		}
		if err := tell(bridge, ip, mac); err != nil {
			return fmt.Errorf("announce address %s on bridge %s: %w", ip, bridge.Name, err)
		}
	}

	return nil
}

// claim broadcasts a gratuitous ARP request. Closing its socket makes the kernel wait for some milliseconds,
// which only a container with a MAC address of its own pays.
func claim(bridge rtnl.Link, ip netip.Addr, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	to := &unix.SockaddrLinklayer{Ifindex: bridge.Index, Halen: uint8(len(mac))}
	copy(to.Addr[:], broadcast)
	return os.NewSyscallError("sendto", unix.Sendto(fd, gratuitous(ip, mac), 0, to))
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// gratuitous is a frame with an ARP request for the sender's own address (RFC 5227, 1.2).
func gratuitous(ip netip.Addr, mac net.HardwareAddr) []byte {
	frame := append(append([]byte(nil), broadcast...), mac...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)

	// Ethernet, IPv4, their sizes, request
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, mac...), ip.AsSlice()...)
	return append(append(frame, make([]byte, 6)...), ip.AsSlice()...)
}

// advertise sends an unsolicited neighbour advertisement (RFC 4861, 7.2.6) to all nodes on the bridge. It
// leaves by the bridge, not by the pod's interface, whose port may not forward yet.
func advertise(bridge rtnl.Link, ip netip.Addr, mac net.HardwareAddr) error {
	// With IPPROTO_RAW the IPv6 header is ours, and with it the source address.
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	to := &unix.SockaddrInet6{Addr: allNodes.As16(), ZoneId: uint32(bridge.Index)}
	err = unix.Sendto(fd, advertisement(ip, mac), 0, to)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EADDRNOTAVAIL) ||
		errors.Is(err, unix.ENETDOWN) {
		// IPv6 is off on the bridge of a network without gateway
		return nil
	}

	return os.NewSyscallError("sendto", err)
}

var allNodes = netip.MustParseAddr("ff02::1")

// advertisement is an IPv6 packet with a neighbour advertisement (RFC 4861, 4.4) that overrides what its
// receivers know.
func advertisement(ip netip.Addr, mac net.HardwareAddr) []byte {
	const (
		headerSize   = 40
		kind         = 136
		override     = 0x20
		targetOption = 2
	)

	target, to := ip.As16(), allNodes.As16()
	message := append([]byte{kind, 0, 0, 0, override, 0, 0, 0}, target[:]...)
	message = append(append(message, targetOption, 1), mac...)

	packet := make([]byte, headerSize, headerSize+len(message))
	packet[0] = 6 << 4
	binary.BigEndian.PutUint16(packet[4:], uint16(len(message)))

	// a receiver drops what a router may have passed on
	packet[6], packet[7] = unix.IPPROTO_ICMPV6, 255
	copy(packet[8:], target[:])
	copy(packet[24:], to[:])

	pseudo := append(append([]byte(nil), packet[8:headerSize]...), 0, 0, 0, byte(len(message)), 0, 0, 0,
		unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(message[2:], checksum(append(pseudo, message...)))
	return append(packet, message...)
}

// checksum is that of RFC 1071 for an even number of bytes.
func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
