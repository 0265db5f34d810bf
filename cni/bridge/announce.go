package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// announce makes everybody on the bridge send to the pod's new MAC address at once. Those who sent to an
// address that another pod had before would otherwise use that pod's MAC address until the entry of their
// neighbour cache ages, 20 to 50 s later.
func announce(host *rtnl.Conn, c Config, a Attachment, ends Ends) error {
	moved := withNewMAC(a)
	if len(moved) == 0 {
		return nil
	}

	// On a bridge that is not a gateway, the host does not send to pods.
	if c.IsGateway {
		var messages []*netlink.Message
		for _, ip := range moved {
			messages = append(messages, rtnl.SetNeighbour(ends.Bridge.Index, ip, ends.Pod.MAC))
		}

		if err := host.Must(messages...); err != nil {
			return err
		}
	}

	// With HostRouted, other pods have the gateway alone for a neighbour. With DAD, the kernel announces the
	// address when it has checked it.
	if c.HostRouted || c.DAD {
		return nil
	}

	for _, ip := range moved {
		send := sendAdvertisement
		if ip.Is4() {
			send = sendGratuitousARP
		}
		if err := send(ends.Bridge, ip, ends.Pod.MAC); err != nil {
			return fmt.Errorf("announce address %s on bridge %s: %w", ip, ends.Bridge.Name, err)
		}
	}

	return nil
}

// withNewMAC returns the addresses whose MAC address differs from that of a pod which had them before. An
// IPv4 address has a MAC address derived from it, unless the runtime asks for another one.
func withNewMAC(a Attachment) (all []netip.Addr) {
	for _, address := range a.Addresses {
		ip := address.Prefix.Addr()
		if ip.Is6() || a.MAC != nil {
			all = append(all, ip)
		}
	}
	return all
}

// sendGratuitousARP broadcasts a gratuitous ARP request. Closing its socket makes the kernel wait for some
// milliseconds, which only a container with a MAC address of its own pays.
func sendGratuitousARP(bridge rtnl.Link, ip netip.Addr, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	to := &unix.SockaddrLinklayer{Ifindex: bridge.Index, Halen: uint8(len(mac))}
	copy(to.Addr[:], broadcast)
	return os.NewSyscallError("sendto", unix.Sendto(fd, gratuitousARP(ip, mac), 0, to))
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// gratuitousARP returns a frame with an ARP request for the sender's own address (RFC 5227, 1.2).
func gratuitousARP(ip netip.Addr, mac net.HardwareAddr) []byte {
	ethernet := slices.Concat(broadcast, mac)
	ethernet = binary.BigEndian.AppendUint16(ethernet, unix.ETH_P_ARP)

	// Ethernet, IPv4, the sizes of their addresses, and the operation: a request.
	header := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	sender := slices.Concat(mac, ip.AsSlice())
	target := slices.Concat(make(net.HardwareAddr, len(mac)), ip.AsSlice())
	return slices.Concat(ethernet, header, sender, target)
}

// sendAdvertisement sends an unsolicited neighbour advertisement (RFC 4861, 7.2.6) to all nodes on the
// bridge. It leaves by the bridge, not by the pod's interface, whose port may not forward yet.
func sendAdvertisement(bridge rtnl.Link, ip netip.Addr, mac net.HardwareAddr) error {
	// With IPPROTO_RAW the packet brings its IPv6 header, and with it the source address.
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()

	to := &unix.SockaddrInet6{Addr: allNodes.As16(), ZoneId: uint32(bridge.Index)}
	err = unix.Sendto(fd, advertisement(ip, mac), 0, to)
	for _, off := range []error{unix.ENETUNREACH, unix.EADDRNOTAVAIL, unix.ENETDOWN} {
		// IPv6 is off on the bridge of a network without gateway.
		if errors.Is(err, off) {
			return nil
		}
	}

	return os.NewSyscallError("sendto", err)
}

var allNodes = netip.MustParseAddr("ff02::1")

// advertisement returns an IPv6 packet with a neighbour advertisement (RFC 4861, 4.4) that overrides what its
// receivers know.
func advertisement(ip netip.Addr, mac net.HardwareAddr) []byte {
	const (
		headerSize   = 40
		messageType  = 136
		override     = 0x20
		targetOption = 2
		// A receiver drops what a router may have passed on.
		hopLimit = 255
	)

	source := ip.As16()
	destination := allNodes.As16()

	message := []byte{messageType, 0, 0, 0, override, 0, 0, 0}
	message = slices.Concat(message, source[:], []byte{targetOption, 1}, mac)

	header := make([]byte, headerSize)
	header[0] = 6 << 4
	binary.BigEndian.PutUint16(header[4:], uint16(len(message)))
	header[6] = unix.IPPROTO_ICMPV6
	header[7] = hopLimit
	copy(header[8:], source[:])
	copy(header[24:], destination[:])

	// The checksum covers a pseudo header too (RFC 4443, 2.3).
	length := []byte{0, 0, 0, byte(len(message)), 0, 0, 0, unix.IPPROTO_ICMPV6}
	sum := checksum(slices.Concat(header[8:], length, message))
	binary.BigEndian.PutUint16(message[2:], sum)
	return slices.Concat(header, message)
}

// checksum is that of RFC 1071, for an even number of bytes.
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
