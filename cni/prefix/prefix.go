// Package prefix is the arithmetic of IP prefixes that net/netip does not have, and the conversions between
// its types and those of package net, which the CNI library uses.
package prefix

import (
	"fmt"
	"net"
	"net/netip"
)

// The default routes.
var (
	Default4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	Default6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// Single returns the prefix that contains a alone.
func Single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// Mask returns the network mask of p, in as many bytes as its addresses have.
func Mask(p netip.Prefix) []byte { return net.CIDRMask(p.Bits(), p.Addr().BitLen()) }

// Last returns the last address of p: in IPv4, the broadcast address.
func Last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i, m := range Mask(p) {
		raw[i] |= ^m
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}

// After returns the first address behind p, or the zero Addr when p ends with the last address of its family.
func After(p netip.Prefix) netip.Addr { return Last(p).Next() }

// SameFamily reports whether a and b are both IPv4 or both IPv6.
func SameFamily(a, b netip.Addr) bool { return a.Is4() == b.Is4() }

// Addr converts an address of package net. An IPv4 address in IPv6 form becomes one of IPv4; what is not an
// address becomes the zero Addr.
func Addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// FromIPNet converts an address with its mask. The address keeps its host bits.
func FromIPNet(n net.IPNet) (netip.Prefix, error) {
	ones, bits := n.Mask.Size()
	a := Addr(n.IP)
	if !a.IsValid() || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("%s is not an address with a prefix length", n.String())
	}
	if a.Is4() && bits == 128 {
		ones -= 96
	}

	p := netip.PrefixFrom(a, ones)
	if !p.IsValid() {
		return p, fmt.Errorf("%s is not an address with a prefix length", n.String())
	}

	return p, nil
}

// IPNet converts a prefix to the type of package net. The address keeps its host bits.
func IPNet(p netip.Prefix) net.IPNet { return net.IPNet{IP: p.Addr().AsSlice(), Mask: Mask(p)} }
