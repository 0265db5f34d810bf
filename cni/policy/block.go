package policy

import (
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/prefix"
)

// part is a range of addresses, both ends included.
type part struct{ first, last netip.Addr }

// blockOf returns the blocks of a rule; nil when the namespace may have no more of them.
func (t *tenant) blockOf(p *Policy, list []Peer) *target {
	key := "blocks " + textOf(list)
	if x := t.targets[key]; x != nil {
		return x
	}

	for _, peer := range list {
		t.parts += 1 + len(peer.Except)
	}
	if t.parts > maxParts {
		t.refuse(p, "the policies of its namespace have too many blocks of addresses")
		return nil
	}

	x := &target{parts: partsOf(list), mark: newMark()}
	t.add(key, x)
	return x
}

// partsOf returns the addresses of blocks without what each of them leaves out.
func partsOf(list []Peer) []part {
	var all []part
	for _, p := range list {
		next, last := p.Block.Masked().Addr(), prefix.Last(p.Block)
		for _, x := range joined(partsOfAll(p.Except)) {
			// Behind the end of the family there is nothing to leave out.
			if !next.IsValid() || !prefix.SameFamily(next, x.first) {
				continue
			}
			if next.Less(x.first) {
				all = append(all, part{next, x.first.Prev()})
			}
			next = x.last.Next()
		}
		if next.IsValid() && !last.Less(next) {
			all = append(all, part{next, last})
		}
	}
	return joined(all)
}

func partsOfAll(prefixes []netip.Prefix) []part {
	all := make([]part, len(prefixes))
	for i, p := range prefixes {
		all[i] = part{p.Masked().Addr(), prefix.Last(p)}
	}
	return all
}

// joined returns the same addresses as disjoint parts in order.
func joined(all []part) (out []part) {
	slices.SortFunc(all, func(a, b part) int { return a.first.Compare(b.first) })
	for _, next := range all {
		last := len(out) - 1
		if last < 0 || !prefix.SameFamily(out[last].first, next.first) || out[last].last.Less(next.first) {
			out = append(out, next)
		} else if out[last].last.Less(next.last) {
			out[last].last = next.last
		}
	}
	return out
}

// edge is where a block begins or has ended.
type edge struct {
	at   netip.Addr
	mark mark
}

// piece is a range of addresses that are in the same blocks.
type piece struct {
	first, last netip.Addr
	class       uint32
}

// divide cuts the address space where a block begins or ends. Pieces of the same blocks have the same class;
// the numbers of classes follow that of the last one of pods.
func divide(all []*target, lastClass uint32) (pieces []piece) {
	known := map[mark]uint32{}
	edges := edgesOf(all)
	var inside mark
	for i := 0; i < len(edges); {
		first := edges[i].at
		// What reaches to the end of IPv4 has no edge there.
		if i > 0 && !prefix.SameFamily(edges[i-1].at, first) {
			inside = mark{}
		}
		for ; i < len(edges) && edges[i].at == first; i++ {
			inside.toggle(edges[i].mark)
		}
		if inside == (mark{}) {
			continue
		}

		last := prefix.Last(netip.PrefixFrom(first, 0))
		if i < len(edges) && prefix.SameFamily(edges[i].at, first) {
			last = edges[i].at.Prev()
		}

		if known[inside] == 0 {
			known[inside] = lastClass + uint32(len(known)+1)
		}
		pieces = append(pieces, piece{first: first, last: last, class: known[inside]})
	}
	return pieces
}

// edgesOf returns the edges of blocks in order.
func edgesOf(all []*target) (edges []edge) {
	for _, x := range all {
		for _, p := range x.parts {
			edges = append(edges, edge{at: p.first, mark: x.mark})
			if end := p.last.Next(); end.IsValid() {
				edges = append(edges, edge{at: end, mark: x.mark})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	return edges
}

// within returns the pieces that a part is made of.
func (p part) within(pieces []piece) []piece {
	byFirst := func(x piece, a netip.Addr) int { return x.first.Compare(a) }
	from, _ := slices.BinarySearchFunc(pieces, p.first, byFirst)
	to, has := slices.BinarySearchFunc(pieces, p.last, byFirst)
	if has {
		to++
	}
	return pieces[from:to]
}
