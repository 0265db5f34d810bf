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

// portsOf returns spans as Ports.
func portsOf(all []Span) Ports {
	spans := join(all)
	raw := make([]byte, 0, spanSize*len(spans))
	for _, s := range spans {
		raw = append(raw, s.Protocol)
		raw = binary.BigEndian.AppendUint16(raw, s.First)
		raw = binary.BigEndian.AppendUint16(raw, s.Last)
	}
	return Ports(raw)
}

// join returns the same ports as disjoint spans in order; such as touch each other are one.
func join(all []Span) (out []Span) {
	slices.SortFunc(all, func(a, b Span) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	for _, next := range all {
		if i := len(out) - 1; i >= 0 && out[i].Protocol == next.Protocol &&
			int(next.First) <= int(out[i].Last)+1 {
			out[i].Last = max(out[i].Last, next.Last)
			continue
		}
		out = append(out, next)
	}
	return out
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
