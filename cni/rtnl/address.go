package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
)

// Flags of an address (IFA_F_*).
const (
	// NoDAD makes an IPv6 address usable at once, without duplicate address detection.
	NoDAD = unix.IFA_F_NODAD
	// NoPrefixRoute keeps the kernel from adding the route to the address's subnet.
	NoPrefixRoute = unix.IFA_F_NOPREFIXROUTE
)

// ifaddr returns a struct ifaddrmsg.
func ifaddr(index int, address netip.Prefix) []byte {
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0] = family(address.Addr())
	header[1] = byte(address.Bits())
	native.PutUint32(header[4:], uint32(index))
	return header
}

// NewAddress adds an address to an interface; IsExist(err) when the interface has it. An IPv4 address gets
// the broadcast address of its subnet.
func NewAddress(index int, address netip.Prefix, flags uint32) *netlink.Message {
	ip := address.Addr()
	m := netlink.NewMessage(
		fmt.Sprintf("add address %s", address),
		unix.RTM_NEWADDR,
		netlink.Create|netlink.Excl,
		ifaddr(index, address),
	)

	m.Bytes(unix.IFA_LOCAL, ip.AsSlice()).Bytes(unix.IFA_ADDRESS, ip.AsSlice())
	if ip.Is4() {
		flags &^= NoDAD
		if address.Bits() < 31 {
			m.Bytes(unix.IFA_BROADCAST, prefix.Last(address).AsSlice())
		}
	}

	return m.Uint32(unix.IFA_FLAGS, flags)
}

// DeleteAddress removes an address from an interface; IsNotExist(err) when the interface does not have it.
func DeleteAddress(index int, address netip.Prefix) *netlink.Message {
	op := fmt.Sprintf("delete address %s", address)
	return netlink.NewMessage(op, unix.RTM_DELADDR, 0, ifaddr(index, address)).
		Bytes(unix.IFA_LOCAL, address.Addr().AsSlice())
}

// InterfaceAddress is an address with the index of the interface that has it.
type InterfaceAddress struct {
	Index  int
	Prefix netip.Prefix
}

// Addresses lists the global addresses of an interface.
func (c *Conn) Addresses(index int) ([]netip.Prefix, error) {
	var addresses []netip.Prefix
	all, err := c.listAddresses(fmt.Sprintf("list addresses of interface %d", index), index)
	for _, a := range all {
		addresses = append(addresses, a.Prefix)
	}
	return addresses, err
}

// AllAddresses lists the global addresses of all interfaces.
func (c *Conn) AllAddresses() ([]InterfaceAddress, error) {
	return c.listAddresses("list addresses", 0)
}

// listAddresses lists those of one interface, or of all for index 0. Older kernels send all in either case.
func (c *Conn) listAddresses(op string, index int) ([]InterfaceAddress, error) {
	header := make([]byte, unix.SizeofIfAddrmsg)
	native.PutUint32(header[4:], uint32(index))

	var all []InterfaceAddress
	err := c.Dump(netlink.NewMessage(op, unix.RTM_GETADDR, 0, header), func(_ uint16, body []byte) {
		if a, ok := parseAddress(body); ok && (index == 0 || a.Index == index) {
			all = append(all, a)
		}
	})
	return all, err
}

// parseAddress reads an address; ok is false for one that is not global.
func parseAddress(body []byte) (a InterfaceAddress, ok bool) {
	if len(body) < unix.SizeofIfAddrmsg || body[3] != unix.RT_SCOPE_UNIVERSE {
		return a, false
	}

	var local, address netip.Addr
	netlink.Attributes(body[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(value)
		}
	})

	// IPv6 has no IFA_LOCAL unless there is a peer.
	if !local.IsValid() {
		local = address
	}

	a.Index = int(native.Uint32(body[4:]))
	a.Prefix = netip.PrefixFrom(local, int(body[1]))
	return a, local.IsValid()
}
