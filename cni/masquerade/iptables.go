package masquerade

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/iptables"
)

const nat = "nat"

// chainOf returns the name of the chain of a container. For upstream the interface is not part of it.
func chainOf(network, container string) string { return "CNI-" + hashOf(network+container, 24) }

func describe(network, container string) string {
	return fmt.Sprintf("name: %q id: %q", network, container)
}

func (p Pod) ensureIPTables() error {
	for _, family := range iptables.Families {
		var own []netip.Prefix
		for _, a := range p.Addresses {
			if iptables.FamilyOf(a.Addr()) == family {
				own = append(own, a)
			}
		}

		if len(own) == 0 {
			continue
		}

		err := iptables.Edit(family, nat, func(t *iptables.Table) error {
			p.fill(t, own)
			return nil
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// fill adds the chain of a container and what leads to it.
func (p Pod) fill(t *iptables.Table, addresses []netip.Prefix) {
	chain := chainOf(p.Network, p.Owner.ContainerID)
	comment := []string{"-m", "comment", "--comment", describe(p.Network, p.Owner.ContainerID)}
	t.EnsureChain(chain)
	for _, a := range addresses {
		none := "224.0.0.0/4"
		if a.Addr().Is6() {
			none = "ff00::/8"
		}

		add := func(chain string, rule ...string) { t.Append(chain, append(rule, comment...)...) }
		if len(t.Rules(chain, " -d "+a.Masked().String()+" ")) == 0 {
			add(chain, "-d", a.Masked().String(), "-j", "ACCEPT")
		}
		if len(t.Rules(chain, " -j MASQUERADE ")) == 0 {
			add(chain, "!", "-d", none, "-j", "MASQUERADE")
		}
		if len(t.Rules("POSTROUTING", " -s "+a.Addr().String()+"/", " -j "+chain+" ")) == 0 {
			add("POSTROUTING", "-s", a.Addr().String(), "-j", chain)
		}
	}
}

func (p Pod) hasIPTables(a netip.Prefix) (bool, error) {
	family := iptables.FamilyOf(a.Addr())
	chain := chainOf(p.Network, p.Owner.ContainerID)
	there, err := iptables.MayHave(family, nat, chain)
	if err != nil || !there {
		return false, err
	}

	t, err := iptables.Read(family, nat)
	if err != nil {
		return false, err
	}

	jumps := t.Rules("POSTROUTING", " -s "+a.Addr().String()+"/", " -j "+chain+" ")
	return len(jumps) > 0 && len(t.Rules(chain, " -j MASQUERADE ")) > 0, nil
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
