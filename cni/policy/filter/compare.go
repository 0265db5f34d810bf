package filter

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/policy"
)

// maxDifferences is how many differences are named.
const maxDifferences = 20

// Difference is one between what is wanted and what the kernel has.
type Difference struct {
	What string
	// Have is what the kernel has: of another look that finds another one, somebody has written meanwhile.
	Have string
}

// Compare says what of a state is not in the kernel, and what is there beside it, set by set. It changes
// nothing. Profiles and ports have other numbers in each process, so that what addresses lead to is compared.
// Rules are compared, and where the kernel calls them. The zero Bridge leaves its table out.
func (f *Filter) Compare(s *policy.State, b Bridge) (differences []Difference, err error) {
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
			return []Difference{{What: lacks}}, nil
		case lacks != "":
			continue
		case s.IsEmpty():
			what := f.describe(i) + " is there, and there are no policies"
			differences = append(differences, Difference{What: what})
			continue
		}
		// Rules first: one may be why all elements that lead to its chain differ, and not all are named.
		differences = append(differences, compareBodies(f.describe(i), w, have)...)
		differences = append(differences, compareMeanings(f.describe(i), w.meaning(), have.meaning())...)
	}

	if more := len(differences) - maxDifferences; more > 0 {
		rest := Difference{What: fmt.Sprintf("%d more differences", more)}
		differences = append(differences[:maxDifferences], rest)
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
func compareMeanings(table string, want, have meaning) (differences []Difference) {
	add := func(object, what string) {
		differences = append(differences, Difference{
			What: fmt.Sprintf("%s: %s is %s", table, object, what),
			Have: have[object],
		})
	}
	for _, object := range slices.Sorted(maps.Keys(want)) {
		got, is := have[object]
		switch {
		case !is:
			add(object, "missing")
		case got != want[object]:
			add(object, "not as it should be")
		}
	}
	for _, object := range slices.Sorted(maps.Keys(have)) {
		if _, is := want[object]; !is {
			add(object, "not wanted")
		}
	}
	return differences
}

// meaning returns what the table does. Of chains that elements lead to, the content is that of the element.
func (l *layout) meaning() meaning {
	m := meaning{}
	for name, c := range l.chains {
		if c.hook != nil {
			m["chain "+name] = fmt.Sprintf("hook %d, priority %d, drops %v: %s",
				*c.hook, c.priority, c.drops, strings.Join(c.bodies(l.table), "; "))
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

		word := quoted(netlink.Text([]byte(key[:size])))
		if a, ok := netip.AddrFromSlice([]byte(key[:size])); ok && part != "ifname" {
			word = a.String()
		}
		words = append(words, word)
		key = key[size:]
	}
	return strings.Join(words, " ")
}

// quoted returns a name of the kernel for people: root of the node may have given it any characters.
func quoted(name string) string {
	isOdd := func(r rune) bool {
		isPlain := r <= unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))
		return !isPlain && !strings.ContainsRune("_-.@", r)
	}
	if name == "" || strings.ContainsFunc(name, isOdd) {
		return strconv.QuoteToASCII(name)
	}
	return name
}

// effect returns what a verdict leads to, without names that are numbers: of a chain that elements lead to, a
// hash of its content, which is made once. Many addresses lead to one, and it may have thousands of peers.
func (l *layout) effect(v expr.Verdict) string {
	n, isProfile := strings.CutPrefix(v.Chain, "profile")
	if !isProfile && !strings.HasPrefix(v.Chain, "ports") {
		return fmt.Sprint(v.Kind, v.Chain)
	}

	if l.effects[v.Chain] == "" {
		content := sha256.New()
		if isProfile {
			l.writeProfile(content, n)
		} else {
			l.writePorts(content, v.Chain)
		}
		l.effects[v.Chain] = fmt.Sprintf("%x", content.Sum(nil))
	}
	return l.effects[v.Chain]
}

func (l *layout) rulesOf(chain string) int {
	if c := l.chains[chain]; c != nil {
		return len(c.rules)
	}
	return 0
}

// writeProfile writes the content of the profile with a number.
func (l *layout) writeProfile(w io.Writer, n string) {
	fmt.Fprintln(w, l.rulesOf("profile"+n), "rules")
	if c := l.chains["profile"+n]; c != nil && len(c.rules) > 0 {
		if first, ok := c.rules[0][0].(*expr.Verdict); ok {
			fmt.Fprintln(w, "others:", l.effect(*first))
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
				fmt.Fprintf(w, "%s %x: %s\n", kind, s.raw(key), what)
			}
		}
	}
}

// writePorts writes the content of the chain that allows ports.
func (l *layout) writePorts(w io.Writer, name string) {
	fmt.Fprintln(w, l.rulesOf(name), "rules")
	s := l.sets[name]
	if s == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(s.elements)) {
		fmt.Fprintf(w, "%x-%x\n", key, s.elements[key].end)
	}
}
