package portmap

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/expr"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/nft"
)

// Check returns an error unless the rules are there as they were written, in whichever backend.
func (p Pod) Check() error {
	inNFTables, failure := p.checkNFTables()
	if failure == nil {
		return nil
	}

	inIPTables, other := p.checkIPTables()
	if other == nil || inIPTables && (p.Backend == IPTables || !inNFTables) {
		return other
	}

	return failure
}

// missing is what Check says.
func missing(p hostnat.Port, where string) error {
	return fmt.Errorf("%s to %s is not in %s", p, p.Pod, where)
}

// checkNFTables returns an error unless the rules are there; hasRules says whether the container has any.
func (p Pod) checkNFTables() (hasRules bool, err error) {
	err = eachTable(func(t table) error {
		ports, own, ok := p.ofFamily(t.is6())
		if !ok {
			return nil
		}

		rules, err := t.rulesOf(p.Owner.ContainerID)
		if err != nil {
			return err
		}

		hasRules = hasRules || len(rules) > 0
		if err := p.checkPorts(t, rules, ports); err != nil {
			return err
		}
		if err := p.checkMasquerading(t, rules, own.Addr()); err != nil {
			return err
		}

		return t.checkEntries(len(p.conditions(t.is6())) > 0)
	})
	return hasRules, err
}

// checkPorts looks for the rule of each port. Conditions are nft's to write: of a rule with some, where it
// leads is compared, and of upstream's, which has them elsewhere, all of it.
func (p Pod) checkPorts(t table, rules []nft.Rule, ports []hostnat.Port) error {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r nft.Rule) bool { return r.Chain == masquerades })
	for _, port := range ports {
		translate := nft.DestinationNAT(t.Family, port.Pod)
		there, err := nft.Has(rules, t.NFProto, t.to(port), translate)
		if err == nil && !there && len(p.conditions(t.is6())) > 0 {
			there, err = t.endsWith(rules, translate)
		}
		if err != nil {
			return err
		}
		if !there {
			return missing(port, "nftables table "+tableName)
		}
	}
	return nil
}

// endsWith reports whether one of some rules ends with some expressions, or is these.
func (t table) endsWith(rules []nft.Rule, want []expr.Any) (bool, error) {
	text, err := nft.Text(t.NFProto, want)
	return slices.ContainsFunc(rules, func(r nft.Rule) bool {
		there := r.Text()
		return there == text || strings.HasSuffix(there, " | "+text)
	}), err
}

func (p Pod) checkMasquerading(t table, rules []nft.Rule, pod netip.Addr) error {
	wanted := p.masquerading(t, pod)
	if len(wanted) == 0 {
		return nil
	}
	if err := t.reader.CheckHook(postrouting()); err != nil {
		return err
	}

	rules = slices.DeleteFunc(slices.Clone(rules), func(r nft.Rule) bool { return r.Chain != masquerades })
	for _, want := range wanted {
		there, err := nft.Has(rules, t.NFProto, want)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("nftables table %s does not masquerade what %s cannot answer by its host ports",
				tableName, pod)
		}
	}

	return nil
}

// checkEntries looks at what leads to host ports, which older versions of upstream do without a chain in
// between. Upstream has the conditions of the last pod there.
func (t table) checkEntries(isConditional bool) error {
	for _, c := range entries() {
		if err := t.reader.CheckHook(c); err != nil {
			return err
		}

		rules, err := t.reader.Rules(c.Name)
		if err != nil {
			return err
		}

		leads := func(chain string) (bool, error) {
			if isConditional {
				return t.endsWith(rules, leadTo(chain))
			}
			return nft.Has(rules, t.NFProto, leadTo(chain))
		}

		there, err := leads(allPorts)
		if err == nil && there {
			there, err = t.has(allPorts, nft.Jump(hostPorts))
		} else if err == nil {
			there, err = leads(hostPorts)
		}
		if err != nil {
			return err
		}
		if !there {
			const format = "chain %s of nftables table %s does not lead to %s"
			return fmt.Errorf(format, c.Name, tableName, hostPorts)
		}
	}

	return t.checkGuard()
}

func (t table) has(chain string, want []expr.Any) (bool, error) {
	rules, err := t.reader.Rules(chain)
	if err != nil {
		return false, err
	}
	return nft.Has(rules, t.NFProto, want)
}

// checkGuard compares the chain that upstream does not have.
func (t table) checkGuard() error {
	there, err := t.reader.CountOf(guard)
	if err != nil || there < 0 {
		return err
	}
	return t.reader.Compare(t.guards())
}

// checkIPTables returns an error unless the rules are there; hasChain says whether the container has a chain.
func (p Pod) checkIPTables() (hasChain bool, err error) {
	chain := chainOf(p.Network, p.Owner.ContainerID)
	for _, family := range iptables.Families {
		ports, own, ok := p.ofFamily(family == iptables.IPv6)
		if !ok {
			continue
		}

		there, err := iptables.MayHave(family, nat, chain)
		if err != nil {
			return hasChain, err
		}
		if !there {
			return hasChain, missing(ports[0], string(family))
		}

		t, err := iptables.Read(family, nat)
		if err != nil {
			return hasChain, err
		}
		if !t.HasChain(chain) {
			return hasChain, missing(ports[0], string(family))
		}

		hasChain = true
		rules := p.shared()
		for _, port := range ports {
			for _, words := range p.translation(port, own) {
				rules = append(rules, iptables.Rule{Chain: chain, Words: words})
			}
		}

		leading, err := p.leading(t, ports)
		if err != nil {
			return hasChain, err
		}
		if err := iptables.Check(family, nat, append(rules, leading...)); err != nil {
			return hasChain, err
		}
	}

	return hasChain, nil
}

// leading returns the rules that lead some ports to the chain of the container, with the ports as they are
// there: upstream's have those of other families, too.
func (p Pod) leading(t *iptables.Table, ports []hostnat.Port) (rules []iptables.Rule, err error) {
	chain := chainOf(p.Network, p.Owner.ContainerID)
	led := map[string]bool{}
	for _, there := range t.Rules(dnatChain, " -j "+chain+" ") {
		words := strings.Fields(there)
		protocol, list := behind(words, "-p"), behind(words, "--dports")
		for port := range strings.SplitSeq(list, ",") {
			led[port+"/"+protocol] = true
		}

		entry := p.entry(protocol, list, ports[0].Pod.Addr().Is6())
		rules = append(rules, iptables.Rule{Chain: dnatChain, Words: append(entry, "-j", chain)})
	}

	for _, port := range ports {
		if !led[fmt.Sprintf("%d/%s", port.HostPort, port.Protocol)] {
			return nil, missing(port, "chain "+dnatChain)
		}
	}

	return rules, nil
}

// behind returns the word that follows an option.
func behind(words []string, option string) string {
	if i := slices.Index(words, option); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}
