package ipam

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/trivet-node/trivet/cni/prefix"
)

// Range is a run of addresses of one subnet, as in host-local.
type Range struct {
	Subnet netip.Prefix
	// Start and End are the first and the last address that are allocated.
	Start, End netip.Addr
	Gateway    netip.Addr
}

// NewRange checks a range and completes what is zero in it: the gateway is the first address of the subnet,
// Start follows the network address, End precedes the broadcast address.
func NewRange(r Range) (Range, error) {
	subnet := r.Subnet
	switch {
	case !subnet.IsValid():
		return Range{}, errors.New("range without subnet")
	case subnet.Masked() != subnet:
		return Range{}, fmt.Errorf("subnet %s has host bits set (the network is %s)", subnet, subnet.Masked())
	case subnet.Addr().BitLen()-subnet.Bits() < 2:
		return Range{}, fmt.Errorf("subnet %s is too small to allocate addresses", subnet)
	}

	first := subnet.Addr().Next()
	r.Gateway = orElse(r.Gateway, first)
	r.Start = orElse(r.Start, first)
	r.End = orElse(r.End, lastAddress(subnet))

	// The gateway may lie outside the subnet, as in host-local.
	switch {
	case !prefix.SameFamily(r.Gateway, subnet.Addr()):
		return Range{}, fmt.Errorf("gateway %s is not in subnet %s", r.Gateway, subnet)
	case !subnet.Contains(r.Start):
		return Range{}, fmt.Errorf("rangeStart %s is not in subnet %s", r.Start, subnet)
	case !subnet.Contains(r.End):
		return Range{}, fmt.Errorf("rangeEnd %s is not in subnet %s", r.End, subnet)
	case r.End.Less(r.Start):
		return Range{}, fmt.Errorf("rangeEnd %s is before rangeStart %s", r.End, r.Start)
	}

	return r, nil
}

func orElse(a, standard netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return standard
}

// lastAddress returns the address before the broadcast address in IPv4, the very last one in IPv6.
func lastAddress(p netip.Prefix) netip.Addr {
	last := prefix.Last(p)
	if last.Is4() {
		return last.Prev()
	}
	return last
}

// Contains reports whether a may be allocated from the range: the gateway never is.
func (r Range) Contains(a netip.Addr) bool {
	return prefix.SameFamily(a, r.Start) && !a.Less(r.Start) && !r.End.Less(a) && a != r.Gateway
}

// overlaps reports whether two ranges have addresses in common.
func (r Range) overlaps(other Range) bool {
	return prefix.SameFamily(r.Start, other.Start) && !r.End.Less(other.Start) && !other.End.Less(r.Start)
}

// each calls visit with every address from from to to that may be allocated, until visit returns false; then
// each returns false.
func (r Range) each(from, to netip.Addr, visit func(netip.Addr, Range) bool) bool {
	for a := from; a.IsValid() && !to.Less(a); a = a.Next() {
		if a != r.Gateway && !visit(a, r) {
			return false
		}
	}
	return true
}

// Set is the ranges, all of one family, of which a container gets one address.
type Set []Range

// CheckSets returns an error unless the ranges of each set are of one family and no range overlaps another.
func CheckSets(sets []Set) error {
	var all []Range
	for i, set := range sets {
		if len(set) == 0 {
			return fmt.Errorf("range set %d is empty", i)
		}

		for _, r := range set {
			if !prefix.SameFamily(r.Start, set[0].Start) {
				return fmt.Errorf("range set %d mixes IPv4 and IPv6", i)
			}

			for _, other := range all {
				if r.overlaps(other) {
					return fmt.Errorf("ranges %s-%s and %s-%s overlap",
						r.Start, r.End, other.Start, other.End)
				}
			}

			all = append(all, r)
		}
	}

	return nil
}

// find returns the range that a may be allocated from.
func (s Set) find(a netip.Addr) (Range, bool) {
	for _, r := range s {
		if r.Contains(a) {
			return r, true
		}
	}
	return Range{}, false
}

// gatewayOf returns the range whose gateway a is.
func (s Set) gatewayOf(a netip.Addr) (Range, bool) {
	for _, r := range s {
		if r.Gateway == a {
			return r, true
		}
	}
	return Range{}, false
}

// eachAfter calls visit with every address of the set once, beginning behind last, until visit returns false.
func (s Set) eachAfter(last netip.Addr, visit func(netip.Addr, Range) bool) {
	first := 0
	for i, r := range s {
		if r.Contains(last) {
			first = i
		}
	}

	begin := s[first]
	from := begin.Start
	if begin.Contains(last) && last != begin.End {
		from = last.Next()
	}

	// The rest of the range that last is in, the other ranges, and the beginning of the first one.
	if !begin.each(from, begin.End, visit) {
		return
	}

	for i := 1; i < len(s); i++ {
		r := s[(first+i)%len(s)]
		if !r.each(r.Start, r.End, visit) {
			return
		}
	}

	if from != begin.Start {
		begin.each(begin.Start, from.Prev(), visit)
	}
}
