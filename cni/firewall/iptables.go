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
			for _, r := range rulesOf(own) {
				if !t.Has(r.chain, r.text) {
					t.Append(r.chain, strings.Fields(r.text)...)
				}
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

		// An administrator who has written these may have given them other comments.
		leads := []rule{{forward, "-j " + forwardChain}, {forwardChain, "-j " + c.AdminChain}}
		for _, r := range slices.Concat(leads, rulesOf(own)) {
			if !t.Has(r.chain, r.text) {
				return fmt.Errorf("chain %s of %s has no rule %q", r.chain, family, r.text)
			}
		}
	}

	return nil
}

// rule is one as iptables prints it, but for its comment.
type rule struct{ chain, text string }

// rulesOf returns the rules that accept what addresses send, and the answers.
func rulesOf(addresses []netip.Addr) (all []rule) {
	for _, a := range addresses {
		all = append(all,
			rule{forwardChain, "-d " + single(a) + " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"},
			rule{forwardChain, "-s " + single(a) + " -j ACCEPT"},
		)
	}
	return all
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

// bridgeRule is a rule that keeps bridges apart.
type bridgeRule struct {
	rule
	// isFirst is for one that has to come before those which return.
	isFirst bool
	// comment is upstream's: of the policy, or of both.
	comment string
}

// bridgeRules returns the rules that a bridge has with a policy, and those of all bridges.
func bridgeRules(bridge string, policy isolation.Policy) []bridgeRule {
	const both = "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"
	own := fmt.Sprintf("CNI firewall plugin rules (ingressPolicy: %s)", policy)
	in, out := "-i "+bridge, "-o "+bridge

	all := []bridgeRule{
		{rule{forward, "-j " + stage1}, true, both},
		{rule{stage1, in + " ! " + out + " -j " + stage2}, true, own},
	}
	if policy == isolation.Isolated {
		all = append(all, bridgeRule{rule{stage1, in + " " + out + " -j DROP"}, true, own})
	}
	return append(all,
		bridgeRule{rule{stage1, "-j RETURN"}, false, both},
		bridgeRule{rule{stage2, out + " -j DROP"}, true, both},
		bridgeRule{rule{stage2, "-j RETURN"}, false, both},
	)
}

func isolate(t *iptables.Table, bridge string, policy isolation.Policy) {
	t.EnsureChain(stage1)
	t.EnsureChain(stage2)
	for _, r := range bridgeRules(bridge, policy) {
		write := t.Append
		if r.isFirst {
			write = t.Prepend
		}
		if !t.Has(r.chain, r.text) {
			write(r.chain, commented(r.comment, strings.Fields(r.text)...)...)
		}
	}
}

// checkIsolation returns an error that names the first rule of a bridge that is not there.
func checkIsolation(bridge string, policy isolation.Policy, families []iptables.Family) error {
	for _, family := range families {
		t, err := iptables.Read(family, filter)
		if err != nil {
			return err
		}
		for _, r := range bridgeRules(bridge, policy) {
			if !t.Has(r.chain, r.text) {
				return fmt.Errorf("bridge %s is not isolated: chain %s of %s has no rule %q",
					bridge, r.chain, family, r.text)
			}
		}
	}
	return nil
}
