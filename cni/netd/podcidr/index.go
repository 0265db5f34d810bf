package podcidr

import (
	"net/netip"
	"slices"
)

// Index finds which of many prefixes lie in another one, or around it, in as many look-ups as there are
// prefix lengths in use. Those are one or two in a cluster, and at most 161 whatever Nodes claim.
type Index[V any] struct {
	// queried are the lengths of the prefixes that Within can be called with, held those of the prefixes
	// added, both longest first.
	queried lengths
	held    lengths
	// around has the values of the prefixes added. within has, by prefix of a queried length, the first one
	// added that lies in it.
	around map[netip.Prefix]V
	within map[netip.Prefix]entry[V]
}

type entry[V any] struct {
	prefix netip.Prefix
	value  V
}

// lengths are prefix lengths in use, longest first.
type lengths struct{ v4, v6 []int }

func (l *lengths) of(a netip.Addr) *[]int {
	if a.Is4() {
		return &l.v4
	}
	return &l.v6
}

func (l *lengths) add(p netip.Prefix) {
	of := l.of(p.Addr())
	if !slices.Contains(*of, p.Bits()) {
		*of = append(*of, p.Bits())
		slices.SortFunc(*of, func(a, b int) int { return b - a })
	}
}

// NewIndex returns an empty index that can be queried for the pod CIDRs of these Nodes.
func NewIndex[V any](nodes []Node) *Index[V] {
	x := &Index[V]{around: map[netip.Prefix]V{}, within: map[netip.Prefix]entry[V]{}}
	for _, n := range nodes {
		for _, p := range n.PodCIDRs {
			x.queried.add(p)
		}
	}
	return x
}

// Add adds a prefix. Of equal ones the first counts.
func (x *Index[V]) Add(p netip.Prefix, value V) {
	p = p.Masked()
	if _, there := x.around[p]; there {
		return
	}

	x.around[p] = value
	x.held.add(p)
	for _, bits := range *x.queried.of(p.Addr()) {
		if bits > p.Bits() {
			continue
		}

		key := netip.PrefixFrom(p.Addr(), bits).Masked()
		if _, there := x.within[key]; !there {
			x.within[key] = entry[V]{prefix: p, value: value}
		}
	}
}

// Within returns the first prefix added that is p or a part of it.
func (x *Index[V]) Within(p netip.Prefix) (netip.Prefix, V, bool) {
	e, ok := x.within[p.Masked()]
	return e.prefix, e.value, ok
}

// Around returns the longest prefix added that is p or contains it.
func (x *Index[V]) Around(p netip.Prefix) (netip.Prefix, V, bool) {
	for _, bits := range *x.held.of(p.Addr()) {
		if bits > p.Bits() {
			continue
		}

		key := netip.PrefixFrom(p.Addr(), bits).Masked()
		if v, ok := x.around[key]; ok {
			return key, v, true
		}
	}

	var none V
	return netip.Prefix{}, none, false
}

// Overlapping returns a prefix added that has addresses in common with p.
func (x *Index[V]) Overlapping(p netip.Prefix) (netip.Prefix, V, bool) {
	if other, v, ok := x.Within(p); ok {
		return other, v, true
	}
	return x.Around(p)
}
