package filter

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/policy"
)

// maxDifferences is how many differences are named.
const maxDifferences = 20

// Compare says what of a state is not in the kernel, and what is there beside it, set by set. It changes
// nothing. Profiles and ports have other numbers in each process, so that what addresses lead to is compared.
func (f *Filter) Compare(s *policy.State, b Bridge) (differences []string, err error) {
	wanted := [2]*layout{newLayout(f.tables[0]), newLayout(f.tables[1])}
	if !s.IsEmpty() {
		wanted[0] = layoutOf(f.tables[0], s, &portNumbers{of: map[policy.Ports]uint32{}})
		wanted[1] = layoutOfBridge(f.tables[1], b)
	}

	for i, w := range wanted {
		have, lacks, err := readTable(w.table, w)
		switch {
		case err != nil:
			return nil, err
		case lacks != "" && i == 1 && !s.IsEmpty():
			// A kernel may have no tables for bridges; another finding says so.
			continue
		case lacks != "" && !s.IsEmpty():
			return []string{lacks}, nil
		case lacks != "":
			continue
		case s.IsEmpty():
			differences = append(differences, f.describe(i)+" is there, and there are no policies")
			continue
		}
		differences = append(differences, compareMeanings(f.describe(i), w.meaning(), have.meaning())...)
	}

	if more := len(differences) - maxDifferences; more > 0 {
		differences = append(differences[:maxDifferences], fmt.Sprintf("%d more differences", more))
	}
	return differences, nil
}

// describe names a table.
func (f *Filter) describe(i int) string {
	return fmt.Sprintf("nftables table %s %s", [2]string{"inet", "bridge"}[i], f.name())
}

// meaning is what a table does: for each object, by the words that name it, its content.
type meaning map[string]string

// compareMeanings says what differs between what is wanted of a table and what it does.
func compareMeanings(table string, want, have meaning) (differences []string) {
	for _, object := range slices.Sorted(maps.Keys(want)) {
		got, is := have[object]
		switch {
		case !is:
			differences = append(differences, fmt.Sprintf("%s: %s is missing", table, object))
		case got != want[object]:
			differences = append(differences, fmt.Sprintf("%s: %s is not as it should be", table, object))
		}
	}
	for _, object := range slices.Sorted(maps.Keys(have)) {
		if _, is := want[object]; !is {
			differences = append(differences, fmt.Sprintf("%s: %s is not wanted", table, object))
		}
	}
	return differences
}

// meaning returns what the table does. Of chains that elements lead to, the content is that of the element.
func (l *layout) meaning() meaning {
	m := meaning{}
	for name, c := range l.chains {
		if c.hook != nil {
			m["chain "+name] = fmt.Sprintf("%d rules", len(c.rules))
		}
	}
	for name, s := range l.sets {
		if isNumbered(name) {
			continue
		}
		m["set "+name] = ""
		for key, e := range s.elements {
			m[fmt.Sprintf("element %s of set %s", textOf(s.kind, key), name)] = l.effect(e.verdict)
		}
	}
	return m
}

// isNumbered reports whether a set is one that only a chain of its number leads to.
func isNumbered(name string) bool {
	for _, prefix := range []string{"peers", "blocks"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	number, isPorts := strings.CutPrefix(name, "ports")
	return isPorts && number != ""
}

// textOf returns the key of an element for people.
func textOf(kind setKind, key string) string {
	var words []string
	for part := range strings.FieldsSeq(kind.key) {
		size := map[string]int{"ip": 4, "ip6": 16, "ifname": interfaceSize}[part]
		if len(key) < size {
			break
		}

		word := netlink.Text([]byte(key[:size]))
		if a, ok := netip.AddrFromSlice([]byte(key[:size])); ok && part != "ifname" {
			word = a.String()
		}
		words = append(words, word)
		key = key[size:]
	}
	return strings.Join(words, " ")
}

// effect returns what a verdict leads to, without names that are numbers.
func (l *layout) effect(v expr.Verdict) string {
	if n, ok := strings.CutPrefix(v.Chain, "profile"); ok {
		return l.profile(n)
	}
	if strings.HasPrefix(v.Chain, "ports") {
		return fmt.Sprint(l.rulesOf(v.Chain), " ", l.spans(v.Chain))
	}
	return fmt.Sprint(v.Kind, v.Chain)
}

func (l *layout) rulesOf(chain string) int {
	if c := l.chains[chain]; c != nil {
		return len(c.rules)
	}
	return 0
}

// profile returns the content of the profile with a number.
func (l *layout) profile(n string) string {
	text := []string{fmt.Sprint(l.rulesOf("profile"+n), " rules")}
	if c := l.chains["profile"+n]; c != nil && len(c.rules) > 0 {
		if first, ok := c.rules[0][0].(*expr.Verdict); ok {
			text = append(text, "others: "+l.effect(*first))
		}
	}

	for _, kind := range []string{"peers", "blocks"} {
		for _, f := range []family{v4, v6} {
			s := l.sets[fmt.Sprintf("%s%s_%s", kind, n, f.suffix)]
			if s == nil {
				continue
			}
			for _, key := range slices.SortedFunc(maps.Keys(s.elements), s.compare) {
				e := s.elements[key]
				what := "end"
				if !e.isEnd {
					what = l.effect(e.verdict)
				}
				text = append(text, fmt.Sprintf("%s %x: %s", kind, s.raw(key), what))
			}
		}
	}

	return strings.Join(text, "\n")
}

// spans returns the ports of a set.
func (l *layout) spans(set string) string {
	s := l.sets[set]
	if s == nil {
		return "nothing"
	}
	var text []string
	for _, key := range slices.Sorted(maps.Keys(s.elements)) {
		text = append(text, fmt.Sprintf("%x-%x", key, s.elements[key].end))
	}
	return strings.Join(text, " ")
}

// tableReader reads a table into a layout.
type tableReader struct {
	nft.Reader
	layout *layout
	// kinds has the sets of the layout that is wanted, whose fixed ones are read.
	wanted *layout
}

// readTable reads a table of the kernel, as far as it has what a wanted one has or leads to. lacks says that
// there is none.
func readTable(table *nftables.Table, wanted *layout) (have *layout, lacks string, err error) {
	r := tableReader{layout: newLayout(table), wanted: wanted}
	err = nft.Read(byte(table.Family), table.Name, func(reader nft.Reader) error {
		r.Reader = reader
		there, err := reader.HasTable()
		if err == nil && !there {
			lacks = "nftables table " + table.Name + " is missing"
		}
		if err != nil || !there {
			return err
		}
		return r.read()
	})
	return r.layout, lacks, err
}

func (r tableReader) read() error {
	for name, c := range r.wanted.chains {
		if c.hook == nil {
			continue
		}
		if err := r.chain(name, c.hook); err != nil {
			return err
		}
	}
	for name, s := range r.wanted.sets {
		if isNumbered(name) {
			continue
		}
		if err := r.set(name, s.kind); err != nil {
			return err
		}
	}
	return nil
}

// chain reads the rules of a chain, of which only the verdicts that they begin with are told.
func (r tableReader) chain(name string, hook *nftables.ChainHook) error {
	count, err := r.CountOf(name)
	if err != nil || count < 0 {
		return err
	}
	rules, err := r.Rules(name)
	if err != nil {
		return err
	}

	c := &chain{hook: hook}
	for _, one := range rules {
		begin := rule{nil}
		if one.Verdict != nil {
			begin[0] = one.Verdict
		}
		c.rules = append(c.rules, begin)
	}
	r.layout.chains[name] = c

	for _, one := range rules {
		if one.Verdict != nil {
			if err := r.follow(*one.Verdict); err != nil {
				return err
			}
		}
	}
	return nil
}

// set reads the elements of a set, and what they lead to.
func (r tableReader) set(name string, kind setKind) error {
	if r.layout.sets[name] != nil {
		return nil
	}
	elements, err := r.Elements(&nftables.Set{Name: name})
	if netlink.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}

	s := r.layout.set(name, kind)
	for _, e := range elements {
		key := string(e.Key)
		have := element{end: string(e.KeyEnd), isEnd: e.IntervalEnd}
		if e.IntervalEnd {
			key += endMark
		}
		if e.VerdictData != nil {
			have.verdict = *e.VerdictData
		}
		s.elements[key] = have

		if err := r.follow(have.verdict); err != nil {
			return err
		}
	}
	return nil
}

// follow reads the chain that a verdict leads to, and its sets.
func (r tableReader) follow(v expr.Verdict) error {
	if v.Chain == "" || r.layout.chains[v.Chain] != nil {
		return nil
	}
	if err := r.chain(v.Chain, nil); err != nil {
		return err
	}

	if strings.HasPrefix(v.Chain, "ports") {
		return r.set(v.Chain, setKind{key: "port", interval: true})
	}

	n := strings.TrimPrefix(v.Chain, "profile")
	var err error
	for _, f := range []family{v4, v6} {
		peers, blocks := fmt.Sprintf("peers%s_%s", n, f.suffix), fmt.Sprintf("blocks%s_%s", n, f.suffix)
		err = errors.Join(err,
			r.set(peers, setKind{key: f.key, verdicts: true}),
			r.set(blocks, setKind{key: f.key, verdicts: true, interval: true}),
		)
	}
	return err
}
