package policy

import (
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/prefix"
)

// block are the blocks of a rule, as disjoint intervals in order.
type block struct {
	parts []Interval
	mark  mark
}

// blockOf returns the blocks of a rule.
func (w *work) blockOf(list []Peer) *block {
	key := textOf(list)
	b := w.rim.blocks[key]
	if b == nil {
		b = &block{parts: partsOf(list), mark: newMark()}
		w.rim.blocks[key] = b
		w.rim.order = append(w.rim.order, b)
	}
	return b
}

// partsOf returns the addresses of blocks without what each of them leaves out.
func partsOf(list []Peer) []Interval {
	var all []Interval
	for _, p := range list {
		first, last := p.Block.Masked().Addr(), prefix.Last(p.Block)
		for _, x := range joined(intervalsOf(p.Except)) {
			if first.Less(x.First) {
				all = append(all, Interval{First: first, Last: x.First.Prev()})
			}
			first = x.Last.Next()
		}
		if first.IsValid() && !last.Less(first) {
			all = append(all, Interval{First: first, Last: last})
		}
	}
	return joined(all)
}

func intervalsOf(prefixes []netip.Prefix) []Interval {
	all := make([]Interval, len(prefixes))
	for i, p := range prefixes {
		all[i] = Interval{First: p.Masked().Addr(), Last: prefix.Last(p)}
	}
	return all
}

// joined returns the same addresses as disjoint intervals in order.
func joined(all []Interval) (out []Interval) {
	slices.SortFunc(all, func(a, b Interval) int { return a.First.Compare(b.First) })
	for _, next := range all {
		if last := len(out) - 1; last >= 0 {
			end := out[last].Last.Next()
			if end.IsValid() && !end.Less(next.First) || !out[last].Last.Less(next.First) {
				if out[last].Last.Less(next.Last) {
					out[last].Last = next.Last
				}
				continue
			}
		}
		out = append(out, next)
	}
	return out
}

// edge is where a block begins or has ended.
type edge struct {
	at   netip.Addr
	mark mark
}

// divide cuts the address space where a block begins or ends. Pieces of the same blocks have the same class.
func (w *work) divide(ids *numbers[netip.Addr]) []Interval {
	var pieces []Interval
	var groups [][]netip.Addr
	var at []int
	known := map[mark]int{}

	edges := edgesOf(w.rim.order)
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

		group, found := known[inside]
		if !found {
			group = len(groups)
			known[inside] = group
			groups = append(groups, nil)
		}
		groups[group] = append(groups[group], first)
		pieces = append(pieces, Interval{First: first, Last: last})
		at = append(at, group)
	}

	assigned := ids.assign(groups)
	for i := range pieces {
		pieces[i].Class = assigned[at[i]]
	}
	return pieces
}

// edgesOf returns the edges of blocks in order.
func edgesOf(all []*block) (edges []edge) {
	for _, b := range all {
		for _, part := range b.parts {
			edges = append(edges, edge{at: part.First, mark: b.mark})
			if end := part.Last.Next(); end.IsValid() {
				edges = append(edges, edge{at: end, mark: b.mark})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	return edges
}

// classesOf returns the classes of the pieces that a block has, each once, and how many pieces there are.
func (b *block) classesOf(pieces []Interval) (all []uint32, looked int) {
	for _, part := range b.parts {
		from, _ := slices.BinarySearchFunc(pieces, part.First, func(p Interval, a netip.Addr) int {
			return p.First.Compare(a)
		})
		for _, piece := range pieces[from:] {
			if part.Last.Less(piece.First) {
				break
			}
			looked++
			all = append(all, piece.Class)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), looked
}
