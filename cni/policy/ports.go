package policy

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// Ports are ports of protocols, in a form that can be compared: equal ones are the same. The zero value has
// none.
type Ports string

// AllTraffic is what has no port, too.
const AllTraffic Ports = "*"

// Span is a range of ports of a protocol.
type Span struct {
	Protocol uint8
	First    uint16
	Last     uint16
}

// spanSize is how many bytes of Ports a Span takes.
const spanSize = 5

// portsOf returns spans as Ports: disjoint, in order, and such as touch each other joined.
func portsOf(all []Span) Ports {
	slices.SortFunc(all, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})

	var out []Span
	for _, next := range all {
		if i := len(out) - 1; i >= 0 && out[i].Protocol == next.Protocol &&
			int(next.First) <= int(out[i].Last)+1 {
			out[i].Last = max(out[i].Last, next.Last)
			continue
		}
		out = append(out, next)
	}

	raw := make([]byte, 0, spanSize*len(out))
	for _, s := range out {
		raw = append(raw, s.Protocol)
		raw = binary.BigEndian.AppendUint16(raw, s.First)
		raw = binary.BigEndian.AppendUint16(raw, s.Last)
	}
	return Ports(raw)
}

// Spans returns the ranges, in order; AllTraffic has none.
func (p Ports) Spans() (all []Span) {
	for raw := []byte(p); len(raw) >= spanSize; raw = raw[spanSize:] {
		all = append(all, Span{
			Protocol: raw[0],
			First:    binary.BigEndian.Uint16(raw[1:]),
			Last:     binary.BigEndian.Uint16(raw[3:]),
		})
	}
	return all
}

// Have reports whether a packet to a port is among them.
func (p Ports) Have(protocol uint8, port uint16) bool {
	return p == AllTraffic || slices.ContainsFunc(p.Spans(), func(s Span) bool {
		return s.Protocol == protocol && s.First <= port && port <= s.Last
	})
}
