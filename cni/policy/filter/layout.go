package filter

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/policy"
)

// layout is what a table is to hold, as data: two of them can be compared.
type layout struct {
	table  *nftables.Table
	sets   map[string]*set
	chains map[string]*chain
	// effects are what effect has returned for chains, by their names.
	effects map[string]string
}

// set is a set or map with its elements, by their keys.
type set struct {
	kind     setKind
	elements map[string]element
}

// setKind is what a set is declared as.
type setKind struct {
	key      string
	verdicts bool
	interval bool
}

// element is what a key has in a map, and where a range ends.
type element struct {
	verdict expr.Verdict
	end     string
	// isEnd marks the address behind an interval.
	isEnd bool
}

// chain is a chain with its rules. The text says whether two have the same ones.
type chain struct {
	// hook is nil for a chain that others lead to.
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	// drops says of a chain at a hook that it drops what no rule decides about: ours do not.
	drops bool
	text  string
	rules []rule
	// texts are the rules of a chain of the kernel, of which no more than what they begin with is in rules.
	texts []string
}

// bodies returns the rules of a chain as the kernel has them, as text.
func (c *chain) bodies(table *nftables.Table) []string {
	if c.texts != nil {
		return c.texts
	}
	var all []string
	for _, r := range c.rules {
		text, err := nft.Text(byte(table.Family), r)
		if err != nil {
			text = err.Error()
		}
		all = append(all, text)
	}
	return all
}

// keyTypes are the types of keys by name.
var keyTypes = map[string]nftables.SetDatatype{
	"ip":         nftables.TypeIPAddr,
	"ip6":        nftables.TypeIP6Addr,
	"ip ip":      nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr),
	"ip6 ip6":    nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeIP6Addr),
	"ifname":     nftables.TypeIFName,
	"ifname ip":  nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIPAddr),
	"ifname ip6": nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr),
	"port":       nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService),
}

func newLayout(table *nftables.Table) *layout {
	return &layout{
		table:   table,
		sets:    map[string]*set{},
		chains:  map[string]*chain{},
		effects: map[string]string{},
	}
}

// set returns a set of the layout, which begins without elements.
func (l *layout) set(name string, kind setKind) *set {
	s := l.sets[name]
	if s == nil {
		s = &set{kind: kind, elements: map[string]element{}}
		l.sets[name] = s
	}
	return s
}

// family is an IP version as names have it.
type family struct {
	nft.Family
	suffix string
	key    string
}

var (
	v4 = family{Family: nft.V4, suffix: "4", key: "ip"}
	v6 = family{Family: nft.V6, suffix: "6", key: "ip6"}
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

// portNumbers number what is allowed, for the names of sets and chains.
type portNumbers struct {
	next uint32
	of   map[policy.Ports]uint32
}

// layoutOf returns what the table holds for a state. What is allowed keeps its number in numbers while it is
// used.
func layoutOf(table *nftables.Table, s *policy.State, numbers *portNumbers) *layout {
	l := newLayout(table)
	l.addFixed()

	used := map[policy.Ports]uint32{}
	verdict := func(p policy.Ports) expr.Verdict {
		if p == policy.AllTraffic {
			return allow
		}
		if used[p] == 0 {
			used[p] = numbers.of[p]
		}
		if used[p] == 0 {
			numbers.next++
			used[p] = numbers.next
		}
		return expr.Verdict{Kind: expr.VerdictJump, Chain: l.addPorts(p, used[p])}
	}

	for n, p := range s.Profiles {
		l.addProfile(n, p, verdict)
	}
	for _, d := range policy.Directions {
		for a, n := range s.Numbers[d] {
			f := familyOf(a)
			to := expr.Verdict{Kind: expr.VerdictGoto, Chain: profileChain(n)}
			l.sets[d.String()+f.suffix].elements[string(a.AsSlice())] = element{verdict: to}
			self := string(a.AsSlice())
			l.sets[f.self()].elements[self+self] = element{}
		}
	}

	numbers.of = used
	return l
}

func profileChain(n uint32) string { return fmt.Sprint("profile", n) }

// addProfile adds the chain of a profile, and the maps of those that it has something with.
func (l *layout) addProfile(n uint32, p *policy.Profile, verdict func(policy.Ports) expr.Verdict) {
	var maps []profileMap
	into := func(kind string, a netip.Addr) *set {
		f := familyOf(a)
		name := fmt.Sprintf("%s%d_%s", kind, n, f.suffix)
		if l.sets[name] == nil {
			maps = append(maps, profileMap{name: name, family: f})
		}
		return l.set(name, setKind{key: f.key, verdicts: true, interval: kind == "blocks"})
	}

	for a, ports := range p.Peers {
		into("peers", a).elements[string(a.AsSlice())] = element{verdict: verdict(ports)}
	}
	for _, i := range p.Blocks {
		s := into("blocks", i.First)
		s.elements[string(i.First.AsSlice())] = element{verdict: verdict(i.Ports)}
		// An interval up to the last address has no end.
		if end := i.Last.Next(); end.IsValid() {
			s.elements[string(end.AsSlice())+endMark] = element{isEnd: true}
		}
	}

	others := expr.Verdict{Kind: expr.VerdictContinue}
	if p.Any != "" {
		others = verdict(p.Any)
	}
	l.chains[profileChain(n)] = newProfileChain(p.Direction, others, maps)
}

// addPorts adds the set of what is allowed, and the chain that allows it, and returns the name of both.
func (l *layout) addPorts(p policy.Ports, n uint32) string {
	name := fmt.Sprint("ports", n)
	if l.chains[name] != nil {
		return name
	}

	s := l.set(name, setKind{key: "port", interval: true})
	for _, span := range p.Spans() {
		first, last := portKey(span.Protocol, span.First), portKey(span.Protocol, span.Last)
		s.elements[first] = element{end: last}
	}
	l.chains[name] = newPortsChain(name)
	return name
}

// portKey is the key of a port. The parts of a concatenation are padded to 4 bytes.
func portKey(protocol uint8, port uint16) string {
	key := []byte{protocol, 0, 0, 0}
	key = binary.BigEndian.AppendUint16(key, port)
	return string(append(key, 0, 0))
}

// endMark is behind the key of an interval's end: another interval may begin there.
const endMark = " end"

// raw is the key of an element as the kernel has it.
func (s *set) raw(key string) string {
	if s.elements[key].isEnd {
		return strings.TrimSuffix(key, endMark)
	}
	return key
}

// compare orders keys as the kernel takes them: an interval ends before the next one begins.
func (s *set) compare(a, b string) int {
	if order := strings.Compare(s.raw(a), s.raw(b)); order != 0 {
		return order
	}
	// At one address, the longer key is that of an end.
	return cmp.Compare(len(b), len(a))
}

// list returns elements for the library.
func (s *set) list(keys []string) (all []nftables.SetElement) {
	for _, key := range slices.SortedFunc(slices.Values(keys), s.compare) {
		e := s.elements[key]
		n := nftables.SetElement{
			Key:         []byte(s.raw(key)),
			KeyEnd:      []byte(e.end),
			IntervalEnd: e.isEnd,
		}
		if s.kind.verdicts && !e.isEnd {
			n.VerdictData = &e.verdict
		}
		all = append(all, n)
	}
	return all
}
