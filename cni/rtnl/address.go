package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Address flags (IFA_F_*).
const (
	// NoDAD makes an IPv6 address usable at once, without duplicate address detection.
	NoDAD = unix.IFA_F_NODAD
	// NoPrefixRoute keeps the kernel from adding the route to the address's subnet.
	NoPrefixRoute = unix.IFA_F_NOPREFIXROUTE
)

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func ifaddr(index int, prefix netip.Prefix) []byte {
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0] = family(prefix.Addr())
	header[1] = byte(prefix.Bits())
	native.PutUint32(header[4:], uint32(index))
	return header
}

// NewAddress gives an interface an address with its prefix length. IPv4 addresses get the broadcast address
// of the subnet.
func NewAddress(index int, prefix netip.Prefix, addressFlags uint32) *Message {
	m := newMessage(
		fmt.Sprintf("add address %s", prefix),
		unix.RTM_NEWADDR,
		Create|Excl,
		ifaddr(index, prefix),
	)

	m.Bytes(unix.IFA_LOCAL, prefix.Addr().AsSlice()).Bytes(unix.IFA_ADDRESS, prefix.Addr().AsSlice())
	if prefix.Addr().Is4() {
		addressFlags &^= NoDAD
		if prefix.Bits() < 31 {
			m.Bytes(unix.IFA_BROADCAST, broadcast(prefix).AsSlice())
		}
	}

	return m.Uint32(unix.IFA_FLAGS, addressFlags)
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// DeleteAddress takes an address from an interface.
func DeleteAddress(index int, prefix netip.Prefix) *Message {
	return newMessage(
		fmt.Sprintf("delete address %s", prefix),
		unix.RTM_DELADDR,
		0,
		ifaddr(index, prefix),
	).Bytes(unix.IFA_LOCAL, prefix.Addr().AsSlice())
}

// InterfaceAddress is an address with the interface that has it.
type InterfaceAddress struct {
	Index  int
	Prefix netip.Prefix
}

// Addresses lists the global addresses of an interface.
func (c *Conn) Addresses(index int) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	all, err := c.addresses(fmt.Sprintf("list addresses of interface %d", index), index)
	for _, a := range all {
		prefixes = append(prefixes, a.Prefix)
	}
	return prefixes, err
}

// AllAddresses lists the global addresses of all interfaces.
func (c *Conn) AllAddresses() ([]InterfaceAddress, error) { return c.addresses("list addresses", 0) }

// addresses lists those of one interface, or of all for index 0. Older kernels send all in either case.
func (c *Conn) addresses(what string, index int) ([]InterfaceAddress, error) {
	var all []InterfaceAddress
	header := make([]byte, unix.SizeofIfAddrmsg)
	native.PutUint32(header[4:], uint32(index))
	err := c.Dump(newMessage(what, unix.RTM_GETADDR, 0, header), func(_ uint16, body []byte) {
		if a, ok := parseAddress(body); ok && (index == 0 || a.Index == index) {
			all = append(all, a)
		}
	})
	return all, err
}

func parseAddress(body []byte) (InterfaceAddress, bool) {
	if len(body) < unix.SizeofIfAddrmsg || body[3] != unix.RT_SCOPE_UNIVERSE {
		return InterfaceAddress{}, false
	}

	var local, address netip.Addr
	Attributes(body[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(value)
		}
	})

	// IPv6 has no IFA_LOCAL unless there is a peer
	if !local.IsValid() {
		local = address
	}

	return InterfaceAddress{
		Index:  int(native.Uint32(body[4:])),
		Prefix: netip.PrefixFrom(local, int(body[1])),
	}, local.IsValid()
}
