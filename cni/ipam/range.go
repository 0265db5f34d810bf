package ipam

import (
	"errors"
	"fmt"
	"net/netip"
)

// Range is a run of addresses of one subnet, in host-local's terms.
type Range struct {
	Subnet     netip.Prefix
	Start, End netip.Addr // first and last address given out
	Gateway    netip.Addr
}

// NewRange checks a range and fills in what was left zero: the gateway is the first address of the subnet,
// Start follows the network address, End precedes the broadcast address.
func NewRange(subnet netip.Prefix, start, end, gateway netip.Addr) (Range, error) {
	switch {
	case !subnet.IsValid():
		return Range{}, errors.New("range without subnet")
	case subnet.Masked() != subnet:
		return Range{}, fmt.Errorf("subnet %s has host bits set (the network is %s)", subnet, subnet.Masked())
	case subnet.Addr().BitLen()-subnet.Bits() < 2:
		return Range{}, fmt.Errorf("subnet %s is too small to give out addresses", subnet)
	}

	r := Range{
		Subnet:  subnet,
		Start:   start,
		End:     end,
		Gateway: gateway,
	}
	if !r.Gateway.IsValid() {
		r.Gateway = subnet.Addr().Next()
	}
	if !r.Start.IsValid() {
		r.Start = subnet.Addr().Next()
	}
	if !r.End.IsValid() {
		r.End = lastAddress(subnet)
	}

	for name, a := range map[string]netip.Addr{
		"gateway":    r.Gateway,
		"rangeStart": r.Start,
		"rangeEnd":   r.End,
	} {
		if a.Is4() != subnet.Addr().Is4() || name != "gateway" && !subnet.Contains(a) {
			return Range{}, fmt.Errorf("%s %s is not in subnet %s", name, a, subnet)
		}
	}

	if r.End.Less(r.Start) {
		return Range{}, fmt.Errorf("rangeEnd %s is before rangeStart %s", r.End, r.Start)
	}

	return r, nil
}

// lastAddress is the one before the broadcast address in IPv4, the very last in IPv6.
func lastAddress(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 0x80 >> (i % 8)
	}
	last, _ := netip.AddrFromSlice(raw)
	if last.Is4() {
		return last.Prev()
	}
	return last
}

// Contains reports whether a may be given out of the range: the gateway never is.
func (r Range) Contains(a netip.Addr) bool {
	return a.Is4() == r.Start.Is4() && !a.Less(r.Start) && !r.End.Less(a) && a != r.Gateway
}

// Set are ranges of one family of which a container gets one address.
type Set []Range

// CheckSets makes sure that the ranges of a set are of one family and that none overlaps another.
func CheckSets(sets []Set) error {
	var all []Range
	for i, set := range sets {
		if len(set) == 0 {
			return fmt.Errorf("range set %d is empty", i)
		}

		for _, r := range set {
			if r.Start.Is4() != set[0].Start.Is4() {
				return fmt.Errorf("range set %d mixes IPv4 and IPv6", i)
			}

			for _, other := range all {
				if r.Start.Is4() == other.Start.Is4() && !r.End.Less(other.Start) &&
					!other.End.Less(r.Start) {
					return fmt.Errorf("ranges %s-%s and %s-%s overlap",
						r.Start, r.End, other.Start, other.End)
				}
			}

			all = append(all, r)
		}
	}

	return nil
}

// find returns the range that may give out a.
func (s Set) find(a netip.Addr) (Range, bool) {
	for _, r := range s {
		if r.Contains(a) {
			return r, true
		}
	}
	return Range{}, false
}

// candidates calls try with every address of the set once, beginning after last, until try returns false.
func (s Set) candidates(last netip.Addr, try func(netip.Addr, Range) bool) {
	first := 0
	for i, r := range s {
		if r.Contains(last) {
			first = i
		}
	}

	from := s[first].Start
	if s[first].Contains(last) && last != s[first].End {
		from = last.Next()
	}

	walk := func(r Range, a, end netip.Addr) bool {
		for ; !end.Less(a); a = a.Next() {
			if a != r.Gateway && !try(a, r) {
				return false
			}
			if !a.Next().IsValid() {
				break
			}
		}

		return true
	}
	if !walk(s[first], from, s[first].End) {
		return
	}

	for i := 1; i < len(s); i++ {
		r := s[(first+i)%len(s)]
		if !walk(r, r.Start, r.End) {
			return
		}
	}

	if from != s[first].Start {
		walk(s[first], s[first].Start, from.Prev())
	}
}
