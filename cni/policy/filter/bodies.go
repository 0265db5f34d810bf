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

// counterpart is the chain that is wanted where a chain of the kernel is, for some pods.
type counterpart struct {
	wanted string
	// pods are directions and addresses.
	pods []string
}

// compareBodies says which rules of chains that elements lead to are not as they should be. Chains with other
// numbers of rules are left out: the elements that lead to them are told as different.
func compareBodies(table string, want, have *layout) (differences []Difference) {
	counterparts := map[string]*counterpart{}
	for _, d := range policy.Directions {
		for _, f := range []family{v4, v6} {
			matchChains(counterparts, want, have, d.String()+f.suffix, f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counterparts)) {
		have.matchPorts(counterparts, want, name)
	}

	for _, name := range slices.Sorted(maps.Keys(counterparts)) {
		c := counterparts[name]
		if want.chains[c.wanted] == nil || have.chains[name] == nil {
			continue
		}
		wanted := want.chains[c.wanted].bodies(want.table)
		got := have.chains[name].bodies(have.table)
		if len(wanted) != len(got) {
			continue
		}

		for i, text := range got {
			is := withoutNumbers(name, text)
			if is == withoutNumbers(c.wanted, wanted[i]) {
				continue
			}
			const format = "%s: rule %d of chain %s (%s) is not as it should be"
			differences = append(differences, Difference{
				What: fmt.Sprintf(format, table, i+1, name, c.describePods()),
				Have: is,
			})
		}
	}
	return differences
}

// matchChains finds the counterparts of the profiles that a map of pods leads to.
func matchChains(all map[string]*counterpart, want, have *layout, set string, f family) {
	wanted, got := want.sets[set], have.sets[set]
	if wanted == nil || got == nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(got.elements)) {
		name := got.elements[key].verdict.Chain
		if _, is := wanted.elements[key]; !is || name == "" {
			continue
		}
		if all[name] == nil {
			all[name] = &counterpart{wanted: wanted.elements[key].verdict.Chain}
		}
		pod := strings.TrimSuffix(set, f.suffix) + " of " + textOf(got.kind, key)
		all[name].pods = append(all[name].pods, pod)
	}
}

// matchPorts finds the counterparts of the chains of ports that a profile of the kernel leads to.
func (l *layout) matchPorts(all map[string]*counterpart, want *layout, profile string) {
	c := all[profile]
	match := func(got, wanted expr.Verdict) {
		if !strings.HasPrefix(got.Chain, "ports") || !strings.HasPrefix(wanted.Chain, "ports") {
			return
		}
		if all[got.Chain] == nil {
			all[got.Chain] = &counterpart{wanted: wanted.Chain}
		}
		all[got.Chain].pods = append(all[got.Chain].pods, c.pods...)
	}

	match(l.others(profile), want.others(c.wanted))
	for _, kind := range []string{"peers", "blocks"} {
		for _, f := range []family{v4, v6} {
			got, wanted := l.sets[mapOf(profile, kind, f)], want.sets[mapOf(c.wanted, kind, f)]
			if got == nil || wanted == nil {
				continue
			}
			for key, e := range got.elements {
				match(e.verdict, wanted.elements[key].verdict)
			}
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

func (c *counterpart) describePods() string {
	pods := slices.Compact(slices.SortedFunc(slices.Values(c.pods), cmp.Compare[string]))
	if more := len(pods) - mostPods; more > 0 {
		pods = append(pods[:mostPods], fmt.Sprintf("%d more", more))
	}
	return strings.Join(pods, ", ")
}
