package hostnat

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// version are the constants in which the rules for IPv4 and IPv6 differ.
type version struct {
	suffix           string
	nfproto          byte
	size             int // bytes of an address
	saddr, daddr     uint32
	address          nftables.SetDatatype
	loopback, groups netip.Prefix // groups: multicast, never masqueraded
}

var (
	v4 = version{
		"4", unix.NFPROTO_IPV4, 4, 12, 16, nftables.TypeIPAddr, netip.MustParsePrefix("127.0.0.0/8"),
		netip.MustParsePrefix("224.0.0.0/4"),
	}
	v6 = version{
		"6", unix.NFPROTO_IPV6, 16, 8, 24, nftables.TypeIP6Addr, netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("ff00::/8"),
	}
)

// family holds the sets and maps of one IP version.
type family struct {
	version
	ports, addrPorts, hairpin, noMasq *nftables.Set
}

func newFamily(table *nftables.Table, v version) *family {
	target := nftables.MustConcatSetType(v.address, nftables.TypeInetService)
	portMap := func(name string, key ...nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{
			Table:         table,
			Name:          name + v.suffix,
			IsMap:         true,
			Concatenation: true,
			KeyType:       nftables.MustConcatSetType(key...),
			DataType:      target,
		}
	}

	return &family{
		version:   v,
		ports:     portMap("ports", nftables.TypeInetProto, nftables.TypeInetService),
		addrPorts: portMap("addrports", v.address, nftables.TypeInetProto, nftables.TypeInetService),
		hairpin: &nftables.Set{
			Table:         table,
			Name:          "hairpin" + v.suffix,
			Concatenation: true,
			KeyType:       nftables.MustConcatSetType(v.address, v.address),
		},
		noMasq: &nftables.Set{
			Table:    table,
			Name:     "nomasq" + v.suffix,
			Interval: true,
			KeyType:  v.address,
		},
	}
}

func (f *family) perPod() []*nftables.Set { return []*nftables.Set{f.ports, f.addrPorts, f.hairpin} }

// mapOf is the map that p belongs in.
func (f *family) mapOf(p Port) *nftables.Set {
	if p.HostIP.IsValid() {
		return f.addrPorts
	}
	return f.ports
}

// portElement is the element of p in its map. The parts of a concatenation are padded to 4 bytes.
func (f *family) portElement(p Port) nftables.SetElement {
	var key []byte
	if p.HostIP.IsValid() {
		key = append(key, p.HostIP.AsSlice()...)
	}
	key = append(key, protocols[p.Protocol], 0, 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, p.HostPort), 0, 0)
	value := append([]byte(nil), p.Pod.Addr().AsSlice()...)
	value = append(binary.BigEndian.AppendUint16(value, p.Pod.Port()), 0, 0)
	return nftables.SetElement{Key: key, Val: value}
}

func (f *family) pair(a netip.Addr) []byte {
	return append(append([]byte(nil), a.AsSlice()...), a.AsSlice()...)
}

// target is the pod address that an element of a per-pod set is about.
func (f *family) target(s *nftables.Set, e nftables.SetElement) netip.Addr {
	raw := e.Val
	if s == f.hairpin {
		raw = e.Key
	}
	if len(raw) < f.size {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(raw[:f.size])
	return a
}

// udpPort is the port that an element publishes, if its protocol is UDP.
func (f *family) udpPort(s *nftables.Set, e nftables.SetElement) []Port {
	key := e.Key
	p := Port{Protocol: "udp", Pod: netip.AddrPortFrom(f.target(s, e), 0)}
	switch {
	case s == f.addrPorts && len(key) == f.size+8:
		p.HostIP, _ = netip.AddrFromSlice(key[:f.size])
		key = key[f.size:]
	case s != f.ports || len(key) != 8:
		return nil
	}

	if key[0] != unix.IPPROTO_UDP {
		return nil
	}

	p.HostPort = binary.BigEndian.Uint16(key[4:])
	return []Port{p}
}

// intervals are the elements of an interval set for prefixes, of which those inside another are left out.
func (f *family) intervals(prefixes []netip.Prefix) []nftables.SetElement {
	var all []nftables.SetElement
	for i, p := range prefixes {
		if p.Addr().BitLen() != f.size*8 || covered(p, i, prefixes) {
			continue
		}

		all = append(all, nftables.SetElement{Key: p.Addr().AsSlice()})

		// an interval up to the last address has no end element
		if end := after(p); end.IsValid() {
			all = append(all, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}

	return all
}

func covered(p netip.Prefix, at int, by []netip.Prefix) bool {
	for i, other := range by {
		if i != at && other.Overlaps(p) && (other.Bits() < p.Bits() || other.Bits() == p.Bits() && i < at) {
			return true
		}
	}
	return false
}

// after is the first address behind a prefix, or the zero address when there is none.
func after(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return last.Next()
}
