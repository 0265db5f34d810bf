package filter

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/policy"
)

// counterpart is a chain of the kernel with the one that is wanted in its place.
type counterpart struct{ name, wanted string }

// counterparts are those that are known, each with the pods that it was found by: directions and addresses.
type counterparts map[counterpart][]string

// compareBodies says which rules of chains that elements lead to are not as they should be. Chains with other
// numbers of rules are left out: the elements that lead to them are told as different.
func compareBodies(table string, want, have *layout) (differences []Difference) {
	all := counterparts{}
	for _, d := range policy.Directions {
		for _, f := range []family{v4, v6} {
			all.addProfiles(want, have, d.String()+f.suffix, f)
		}
	}
	all.dropStrays(want, have)
	for _, profile := range all.sorted() {
		all.addPorts(want, have, profile)
	}
	all.dropStrays(want, have)

	for _, c := range all.sorted() {
		if want.chains[c.wanted] == nil || have.chains[c.name] == nil {
			continue
		}
		wanted := want.chains[c.wanted].bodies(want.table)
		got := have.chains[c.name].bodies(have.table)
		if len(wanted) != len(got) {
			continue
		}

		for i, text := range got {
			is := withoutNumbers(c.name, text)
			if is == withoutNumbers(c.wanted, wanted[i]) {
				continue
			}
			const format = "%s: rule %d of chain %s (%s) is not as it should be"
			differences = append(differences, Difference{
				What: fmt.Sprintf(format, table, i+1, quoted(c.name), describePods(all[c])),
				Have: is,
			})
		}
	}
	return differences
}

// sorted returns the counterparts in the order of their names.
func (all counterparts) sorted() []counterpart {
	return slices.SortedFunc(maps.Keys(all), func(a, b counterpart) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.wanted, b.wanted))
	})
}

// addProfiles adds the profiles that a map of pods leads to.
func (all counterparts) addProfiles(want, have *layout, set string, f family) {
	wanted, got := want.sets[set], have.sets[set]
	if wanted == nil || got == nil {
		return
	}
	for key, e := range got.elements {
		name := e.verdict.Chain
		if _, is := wanted.elements[key]; !is || name == "" {
			continue
		}
		c := counterpart{name: name, wanted: wanted.elements[key].verdict.Chain}
		all[c] = append(all[c], strings.TrimSuffix(set, f.suffix)+" of "+textOf(got.kind, key))
	}
}

// addPorts adds the chains of ports that a profile leads to, each once for all elements that do.
func (all counterparts) addPorts(want, have *layout, profile counterpart) {
	found := map[counterpart]bool{}
	match := func(got, wanted expr.Verdict) {
		if strings.HasPrefix(got.Chain, "ports") && strings.HasPrefix(wanted.Chain, "ports") {
			found[counterpart{name: got.Chain, wanted: wanted.Chain}] = true
		}
	}

	match(have.others(profile.name), want.others(profile.wanted))
	for _, kind := range []string{"peers", "blocks"} {
		for _, f := range []family{v4, v6} {
			got, wanted := have.sets[mapOf(profile.name, kind, f)], want.sets[mapOf(profile.wanted, kind, f)]
			if got == nil || wanted == nil {
				continue
			}
			for key, e := range got.elements {
				match(e.verdict, wanted.elements[key].verdict)
			}
		}
	}

	for c := range found {
		all[c] = append(all[c], all[profile]...)
	}
}

// dropStrays drops, of the counterparts of a chain that has several, those with other content. An element was
// led astray there, and is told as different; the chain may be as it should be for all others.
func (all counterparts) dropStrays(want, have *layout) {
	count := map[string]int{}
	for c := range all {
		count[c.name]++
	}
	effect := func(l *layout, chain string) string { return l.effect(expr.Verdict{Chain: chain}) }
	for c := range all {
		if count[c.name] > 1 && effect(have, c.name) != effect(want, c.wanted) {
			delete(all, c)
		}
	}
}

// mapOf returns the name of a map of a profile.
func mapOf(profile, kind string, f family) string {
	return kind + strings.TrimPrefix(profile, "profile") + "_" + f.suffix
}

// others returns the verdict that a profile begins with, if it does.
func (l *layout) others(profile string) (v expr.Verdict) {
	if c := l.chains[profile]; c != nil && len(c.rules) > 0 {
		if first, ok := c.rules[0][0].(*expr.Verdict); ok {
			v = *first
		}
	}
	return v
}

// withoutNumbers returns the text of a rule of a chain without the numbers in the names of what is the
// chain's own, and of ports that a profile leads to, which are compared as such.
func withoutNumbers(chain, text string) string {
	n, isProfile := strings.CutPrefix(chain, "profile")
	words := strings.Fields(text)
	for i, word := range words {
		// A name is an attribute, or the end of a verdict.
		at := strings.Index(word, ":") + 1
		name := word[at:]
		switch {
		case !isProfile && name == chain, isProfile && strings.HasPrefix(name, "ports"):
			name = "ports"
		case isProfile:
			for _, kind := range []string{"peers", "blocks"} {
				if suffix, ok := strings.CutPrefix(name, kind+n+"_"); ok {
					name = kind + "_" + suffix
				}
			}
		}
		words[i] = word[:at] + name
	}
	return strings.Join(words, " ")
}

// mostPods is how many pods of a chain are named.
const mostPods = 3

func describePods(all []string) string {
	pods := slices.Compact(slices.Sorted(slices.Values(all)))
	if more := len(pods) - mostPods; more > 0 {
		pods = append(pods[:mostPods], fmt.Sprintf("%d more", more))
	}
	return strings.Join(pods, ", ")
}
