package masquerade

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/prefix"
)

const nat = "nat"

// chainOf returns the name of the chain of a container. For upstream the interface is not part of it.
func chainOf(network, container string) string { return "CNI-" + hashOf(network+container, 24) }

func describe(network, container string) string {
	return fmt.Sprintf("name: %q id: %q", network, container)
}

func (p Pod) ensureIPTables() error {
	for _, family := range iptables.Families {
		rules := p.rules(family)
		if len(rules) == 0 {
			continue
		}

		err := iptables.Edit(family, nat, func(t *iptables.Table) error {
			p.fill(t, rules)
			return nil
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// rule is one of a pod, as iptables prints it, but for its comment.
type rule struct {
	chain, text string
	address     netip.Prefix
}

// rules returns those of the pod's addresses of a family: in its chain first its subnets, which see its own
// address, then all but multicast.
func (p Pod) rules(family iptables.Family) (all []rule) {
	chain := chainOf(p.Network, p.Owner.ContainerID)
	var last []rule
	add := func(to *[]rule, r rule) {
		isSame := func(other rule) bool { return other.chain == r.chain && other.text == r.text }
		if !slices.ContainsFunc(*to, isSame) {
			*to = append(*to, r)
		}
	}

	for _, a := range p.Addresses {
		if iptables.FamilyOf(a.Addr()) != family {
			continue
		}

		none := multicast[0]
		if a.Addr().Is6() {
			none = multicast[1]
		}
		add(&all, rule{chain, "-d " + a.Masked().String() + " -j ACCEPT", a})
		add(&last, rule{chain, "! -d " + none.String() + " -j MASQUERADE", a})
		add(&last, rule{"POSTROUTING", "-s " + prefix.Single(a.Addr()).String() + " -j " + chain, a})
	}

	return append(all, last...)
}

// fill adds the chain of a container and what leads to it.
func (p Pod) fill(t *iptables.Table, rules []rule) {
	comment := []string{"-m", "comment", "--comment", describe(p.Network, p.Owner.ContainerID)}
	t.EnsureChain(chainOf(p.Network, p.Owner.ContainerID))
	for _, r := range rules {
		if !t.Has(r.chain, r.text) {
			t.Append(r.chain, append(strings.Fields(r.text), comment...)...)
		}
	}
}

// checkIPTables returns an error unless the pod has its rules there; hasChain says whether it has a chain.
func (p Pod) checkIPTables() (hasChain bool, err error) {
	chain := chainOf(p.Network, p.Owner.ContainerID)
	for _, family := range iptables.Families {
		rules := p.rules(family)
		if len(rules) == 0 {
			continue
		}

		there, err := iptables.MayHave(family, nat, chain)
		if err != nil {
			return hasChain, err
		}
		if !there {
			return hasChain, p.missing(rules[0].address, string(family))
		}

		t, err := iptables.Read(family, nat)
		if err != nil {
			return hasChain, err
		}

		hasChain = hasChain || t.HasChain(chain)
		for _, r := range rules {
			if !t.Has(r.chain, r.text) {
				const format = "%w: chain %s has no rule %q"
				return hasChain, fmt.Errorf(format, p.missing(r.address, string(family)), r.chain, r.text)
			}
		}
	}

	return hasChain, nil
}

func removeIPTables(network string, owner ipam.Owner) error {
	chain := chainOf(network, owner.ContainerID)
	return iptables.EditWhereThere(nat, chain, func(t *iptables.Table) error {
		remove(t, chain)
		return nil
	})
}

// keepIPTables removes the chains that rules with the network's name lead to, but for those of valid
// attachments.
func keepIPTables(network string, valid []ipam.Owner) error {
	keep := map[string]bool{}
	for _, owner := range valid {
		keep[chainOf(network, owner.ContainerID)] = true
	}

	// As iptables -S prints it.
	ofNetwork := strings.TrimSuffix(iptables.Quoted(fmt.Sprintf("name: %q id: ", network)), `"`)
	return iptables.EditWhereThere(nat, "", func(t *iptables.Table) error {
		for _, chain := range t.Chains("CNI-") {
			isOwn := len(t.Rules("POSTROUTING", ofNetwork, " -j "+chain+" ")) > 0
			if isOwn && !keep[chain] {
				remove(t, chain)
			}
		}
		return nil
	})
}

// remove removes the chain of a container and what leads to it.
func remove(t *iptables.Table, chain string) {
	if t.HasChain(chain) {
		t.Delete(t.Rules("POSTROUTING", " -j "+chain+" ")...)
		t.DeleteChain(chain)
	}
}
