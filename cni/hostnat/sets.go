package hostnat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/prefix"
)

// family holds the sets of one IP version.
type family struct {
	nft.Family
	// multicast is never masqueraded.
	multicast netip.Prefix

	ports     *nftables.Set
	addrPorts *nftables.Set
	hairpin   *nftables.Set
	noMasq    *nftables.Set
}

func newFamily4(table *nftables.Table) *family {
	f := &family{Family: nft.V4, multicast: netip.MustParsePrefix("224.0.0.0/4")}
	f.nameSets(table, "4", nftables.TypeIPAddr)
	return f
}

func newFamily6(table *nftables.Table) *family {
	f := &family{Family: nft.V6, multicast: netip.MustParsePrefix("ff00::/8")}
	f.nameSets(table, "6", nftables.TypeIP6Addr)
	return f
}

// nameSets describes the sets of the family, whose names end with suffix.
func (f *family) nameSets(table *nftables.Table, suffix string, address nftables.SetDatatype) {
	protocol, port := nftables.TypeInetProto, nftables.TypeInetService

	f.ports = &nftables.Set{
		Table:         table,
		Name:          "ports" + suffix,
		IsMap:         true,
		Concatenation: true,
		KeyType:       nftables.MustConcatSetType(protocol, port),
		DataType:      nftables.MustConcatSetType(address, port),
	}

	f.addrPorts = &nftables.Set{
		Table:         table,
		Name:          "addrports" + suffix,
		IsMap:         true,
		Concatenation: true,
		KeyType:       nftables.MustConcatSetType(address, protocol, port),
		DataType:      nftables.MustConcatSetType(address, port),
	}

	f.hairpin = &nftables.Set{
		Table:         table,
		Name:          "hairpin" + suffix,
		Concatenation: true,
		KeyType:       nftables.MustConcatSetType(address, address),
	}

	f.noMasq = &nftables.Set{
		Table:    table,
		Name:     "nomasq" + suffix,
		Interval: true,
		KeyType:  address,
	}
}

// perPod returns the sets that hold elements of single pods.
func (f *family) perPod() []*nftables.Set { return []*nftables.Set{f.ports, f.addrPorts, f.hairpin} }

// hairpins returns the one set that every pod with host ports is in.
func (f *family) hairpins() []*nftables.Set { return []*nftables.Set{f.hairpin} }

// mapOf returns the map that p belongs in.
func (f *family) mapOf(p Port) *nftables.Set {
	if p.HostIP.IsValid() {
		return f.addrPorts
	}
	return f.ports
}

// protocols are the numbers of the protocols that a host port can have.
var protocols = map[string]byte{
	"tcp":  unix.IPPROTO_TCP,
	"udp":  unix.IPPROTO_UDP,
	"sctp": unix.IPPROTO_SCTP,
}

// portElement returns the element of p in its map. The parts of a concatenation are padded to 4 bytes.
func (f *family) portElement(p Port) nftables.SetElement {
	var key []byte
	if p.HostIP.IsValid() {
		key = append(key, p.HostIP.AsSlice()...)
	}
	key = append(key, protocols[p.Protocol], 0, 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, p.HostPort), 0, 0)

	value := p.Pod.Addr().AsSlice()
	value = append(binary.BigEndian.AppendUint16(value, p.Pod.Port()), 0, 0)
	return nftables.SetElement{Key: key, Val: value}
}

// hairpinElement returns the element of a pod that reaches itself by its host port.
func (f *family) hairpinElement(pod netip.Addr) nftables.SetElement {
	return nftables.SetElement{Key: append(pod.AsSlice(), pod.AsSlice()...)}
}

// podOf returns the pod's address in an element of a per-pod set, or the zero Addr.
func (f *family) podOf(s *nftables.Set, e nftables.SetElement) netip.Addr {
	raw := e.Val
	if s == f.hairpin {
		raw = e.Key
	}
	if len(raw) < f.Size {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(raw[:f.Size])
	return a
}

// udpPort returns the host port that an element publishes; ok is false for one of another protocol or set.
func (f *family) udpPort(s *nftables.Set, e nftables.SetElement) (p Port, ok bool) {
	key := e.Key
	switch {
	case s == f.ports && len(key) == 8:
	case s == f.addrPorts && len(key) == f.Size+8:
		p.HostIP, _ = netip.AddrFromSlice(key[:f.Size])
		key = key[f.Size:]
	default:
		return p, false
	}

	p.Protocol = "udp"
	p.HostPort = binary.BigEndian.Uint16(key[4:])
	p.Pod = netip.AddrPortFrom(f.podOf(s, e), 0)
	return p, key[0] == unix.IPPROTO_UDP
}

// intervals returns the elements of an interval set for prefixes. Those inside another one are left out.
func (f *family) intervals(prefixes []netip.Prefix) []nftables.SetElement {
	var all []nftables.SetElement
	for i, p := range prefixes {
		if p.Addr().BitLen() != f.Size*8 || isCovered(i, prefixes) {
			continue
		}

		all = append(all, nftables.SetElement{Key: p.Addr().AsSlice()})

		// An interval up to the last address has no end element.
		if end := prefix.After(p); end.IsValid() {
			all = append(all, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}

	return all
}

// isCovered reports whether another prefix of the list contains the one at an index. Of equal ones the first
// counts.
func isCovered(at int, prefixes []netip.Prefix) bool {
	p := prefixes[at]
	for i, other := range prefixes {
		if i == at || !other.Overlaps(p) {
			continue
		}
		if other.Bits() < p.Bits() || other.Bits() == p.Bits() && i < at {
			return true
		}
	}
	return false
}
