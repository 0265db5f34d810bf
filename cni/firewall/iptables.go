package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/isolation"
)

// The table and its chains.
const (
	filter       = "filter"
	forward      = "FORWARD"
	forwardChain = "CNI-FORWARD"
	stage1       = "CNI-ISOLATION-STAGE-1"
	stage2       = "CNI-ISOLATION-STAGE-2"
)

func ofFamily(all []netip.Addr, family iptables.Family) (own []netip.Addr) {
	for _, a := range all {
		if iptables.FamilyOf(a) == family {
			own = append(own, a)
		}
	}
	return own
}

// commented appends a comment to a rule.
func commented(text string, rule ...string) []string {
	return append(rule, "-m", "comment", "--comment", text)
}

func (c Config) allowIPTables(p Pod) error {
	for _, family := range iptables.Families {
		own := ofFamily(p.Addresses, family)
		if len(own) == 0 {
			continue
		}

		err := iptables.Edit(family, filter, func(t *iptables.Table) error {
			c.addChains(t)
			for _, a := range own {
				allow(t, a)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// addChains leads forwarded packets first to the administrator's rules, then to those of containers.
func (c Config) addChains(t *iptables.Table) {
	t.EnsureChain(forwardChain)
	t.EnsureChain(c.AdminChain)
	if len(t.Rules(forward, " -j "+forwardChain+" ")) == 0 {
		t.Prepend(forward, "-m", "comment", "--comment", "CNI firewall plugin rules", "-j", forwardChain)
	}
	if len(t.Rules(forwardChain, " -j "+c.AdminChain+" ")) == 0 {
		t.Prepend(forwardChain, "-m", "comment", "--comment", "CNI firewall plugin admin overrides",
			"-j", c.AdminChain)
	}
}

// rulesTo and rulesFrom return the rules of an address that are there.
func rulesTo(t *iptables.Table, a netip.Addr) []string {
	return t.Rules(forwardChain, " -d "+single(a)+" ", " --ctstate ", " -j ACCEPT ")
}

func rulesFrom(t *iptables.Table, a netip.Addr) []string {
	return t.Rules(forwardChain, " -s "+single(a)+" ", " -j ACCEPT ")
}

func single(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

// allow accepts what an address sends, and the answers.
func allow(t *iptables.Table, a netip.Addr) {
	if len(rulesTo(t, a)) == 0 {
		t.Append(forwardChain, "-d", single(a), "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED",
			"-j", "ACCEPT")
	}
	if len(rulesFrom(t, a)) == 0 {
		t.Append(forwardChain, "-s", single(a), "-j", "ACCEPT")
	}
}

func (c Config) checkIPTables(p Pod) error {
	for _, family := range iptables.Families {
		own := ofFamily(p.Addresses, family)
		if len(own) == 0 {
			continue
		}

		t, err := iptables.Read(family, filter)
		if err != nil {
			return err
		}

		switch {
		case len(t.Rules(forward, " -j "+forwardChain+" ")) == 0:
			return fmt.Errorf("chain %s of %s does not lead to %s", forward, family, forwardChain)
		case len(t.Rules(forwardChain, " -j "+c.AdminChain+" ")) == 0:
			return fmt.Errorf("chain %s of %s does not lead to %s", forwardChain, family, c.AdminChain)
		}

		for _, a := range own {
			if len(rulesTo(t, a)) == 0 || len(rulesFrom(t, a)) == 0 {
				return fmt.Errorf("chain %s of %s does not accept %s", forwardChain, family, a)
			}
		}
	}

	return nil
}

func forbidIPTables(p Pod) error {
	return iptables.EditWhereThere(filter, forwardChain, func(t *iptables.Table) error {
		for _, a := range p.Addresses {
			t.Delete(slices.Concat(rulesTo(t, a), rulesFrom(t, a))...)
		}
		return nil
	})
}

// isolateIPTables drops what comes from other bridges of this kind, and with Isolated from the bridge
// itself. What a bridge has stays when its containers go: others may be on it.
func isolateIPTables(bridge string, policy isolation.Policy, families []iptables.Family) error {
	for _, family := range families {
		err := iptables.Edit(family, filter, func(t *iptables.Table) error {
			isolate(t, bridge, policy)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func isolate(t *iptables.Table, bridge string, policy isolation.Policy) {
	const both = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"
	own := fmt.Sprintf("CNI firewall plugin rules (ingressPolicy: %s)", policy)

	ensure := func(chain string, first bool, comment string, rule ...string) {
		// As iptables prints it: what follows -i and -o is part of the rule's name.
		if isThere(t, chain, rule) {
			return
		}
		if first {
			t.Prepend(chain, commented(comment, rule...)...)
		} else {
			t.Append(chain, commented(comment, rule...)...)
		}
	}

	t.EnsureChain(stage1)
	t.EnsureChain(stage2)
	ensure(forward, true, both, "-j", stage1)
	ensure(stage1, true, own, "-i", bridge, "!", "-o", bridge, "-j", stage2)
	if policy == isolation.Isolated {
		ensure(stage1, true, own, "-i", bridge, "-o", bridge, "-j", "DROP")
	}
	ensure(stage1, false, both, "-j", "RETURN")
	ensure(stage2, true, both, "-o", bridge, "-j", "DROP")
	ensure(stage2, false, both, "-j", "RETURN")
}

// isThere reports whether a chain has a rule of interfaces and a target.
func isThere(t *iptables.Table, chain string, rule []string) bool {
	var match strings.Builder
	var texts []string
	for i := 0; i < len(rule)-1; i++ {
		switch rule[i] {
		case "!":
			match.WriteString(" !")
		case "-i", "-o":
			match.WriteString(" " + rule[i] + " " + rule[i+1])
		case "-j":
			texts = append(texts, " -j "+rule[i+1]+" ")
		}
	}

	if match.Len() > 0 {
		texts = append(texts, match.String()+" ")
	}

	for _, there := range t.Rules(chain, texts...) {
		// A rule without interfaces is another one than those with them.
		if match.Len() > 0 || !hasInterface(there) {
			return true
		}
	}

	return false
}

func hasInterface(rule string) bool {
	words := strings.Fields(rule)
	return slices.Contains(words, "-i") || slices.Contains(words, "-o")
}
