package masquerade

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/nft"
)

// The names of the table and of its chains.
const (
	tableName   = "cni_plugins_masquerade"
	checks      = "masq_checks"
	postrouting = "postrouting"
)

var table = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}

// multicast is what is never masqueraded.
var multicast = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")}

// prefixOf begins the comments of the rules of a network.
func prefixOf(network string) string { return hashOf(network, 16) + "-" }

// commentOf is the comment of the rules of a pod: what finds them, and what a reader understands.
func commentOf(network string, owner ipam.Owner) string {
	clean := strings.NewReplacer(`"`, "")
	return fmt.Sprintf("%s, net: %s, if: %s, id: %s", instanceOf(network, owner),
		clean.Replace(network), clean.Replace(owner.IfName), clean.Replace(owner.ContainerID))
}

// instanceOf begins the comments of the rules of a pod.
func instanceOf(network string, owner ipam.Owner) string {
	return prefixOf(network) + hashOf(owner.IfName+":"+owner.ContainerID, 16)
}

// withReader calls f with a connection that reads the table.
func withReader(f func(nft.Reader) error) error { return nft.Read(unix.NFPROTO_INET, tableName, f) }

func (p Pod) ensureNFTables() error {
	return withReader(func(r nft.Reader) error {
		stale, err := r.Rules(checks)
		if err != nil {
			return err
		}

		changes, err := nft.Begin()
		if err != nil {
			return err
		}

		chain := addChains(changes, r.Compare(entry()) == nil)
		for _, rule := range ofPod(stale, p.Network, p.Owner) {
			deleteRule(changes, rule)
		}

		for _, a := range p.Addresses {
			changes.AddRule(&nftables.Rule{
				Table:    table,
				Chain:    chain,
				Exprs:    masquerade(a),
				UserData: nft.Comment(commentOf(p.Network, p.Owner)),
			})
		}

		if err := changes.Flush(); err != nil {
			return fmt.Errorf("write nftables table %s: %w", tableName, err)
		}

		return nil
	})
}

// entry is where the kernel calls the rules, and what leads to those of the pods.
func entry() nft.Chain {
	c := nft.Chain{
		Name:     postrouting,
		Hook:     nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	}
	for _, m := range multicast {
		f := nft.FamilyOf(m.Addr())
		rule := slices.Concat(f.IsFamily(), f.IsWithin(f.Destination, m), nft.Verdict(expr.VerdictReturn))
		c.Rules = append(c.Rules, rule)
	}
	c.Rules = append(c.Rules, nft.Goto(checks))
	return c
}

// addChains makes the table and its chains, and what leads to the pods' rules unless that is there as it
// should be. It returns the chain of the pods' rules.
func addChains(changes *nftables.Conn, isThere bool) *nftables.Chain {
	changes.AddTable(table)
	pods := changes.AddChain(&nftables.Chain{Table: table, Name: checks})
	base := entry()
	chain := changes.AddChain(&nftables.Chain{
		Table:    table,
		Name:     base.Name,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  base.Hook,
		Priority: base.Priority,
	})
	if isThere {
		return pods
	}

	changes.FlushChain(chain)
	for _, r := range base.Rules {
		changes.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r})
	}
	return pods
}

// masquerade: ip saddr ADDRESS ip daddr != SUBNET masquerade.
func masquerade(a netip.Prefix) []expr.Any {
	f := nft.FamilyOf(a.Addr())
	return slices.Concat(
		f.IsFamily(),
		f.Is(f.Source, a.Addr()),
		f.IsNotWithin(f.Destination, a),
		nft.Masquerade(),
	)
}

func deleteRule(changes *nftables.Conn, r nft.Rule) {
	// It fails only for a rule without a handle.
	_ = changes.DelRule(&nftables.Rule{
		Table:  table,
		Chain:  &nftables.Chain{Table: table, Name: r.Chain},
		Handle: r.Handle,
	})
}

// ofPod returns the rules that are a pod's.
func ofPod(rules []nft.Rule, network string, owner ipam.Owner) (own []nft.Rule) {
	for _, r := range rules {
		if strings.HasPrefix(r.Comment, instanceOf(network, owner)) {
			own = append(own, r)
		}
	}
	return own
}

// checkNFTables returns an error unless the pod has its rules there; hasRules says whether it has any.
func (p Pod) checkNFTables() (hasRules bool, err error) {
	err = withReader(func(r nft.Reader) error {
		rules, err := r.Rules(checks)
		if err != nil {
			return err
		}

		rules = ofPod(rules, p.Network, p.Owner)
		hasRules = len(rules) > 0
		for _, a := range p.Addresses {
			there, err := nft.Has(rules, unix.NFPROTO_INET, masquerade(a))
			if err != nil {
				return err
			}
			if !there {
				return p.missing(a, "nftables table "+tableName)
			}
		}

		return r.Compare(entry())
	})
	return hasRules, err
}

func removeNFTables(network string, owner ipam.Owner) error {
	return removeRules(func(rules []nft.Rule) []nft.Rule { return ofPod(rules, network, owner) })
}

func keepNFTables(network string, valid []ipam.Owner) error {
	keep := map[string]bool{}
	for _, owner := range valid {
		keep[instanceOf(network, owner)] = true
	}

	return removeRules(func(rules []nft.Rule) (garbage []nft.Rule) {
		for _, r := range rules {
			instance, _, _ := strings.Cut(r.Comment, ",")
			if strings.HasPrefix(instance, prefixOf(network)) && !keep[instance] {
				garbage = append(garbage, r)
			}
		}
		return garbage
	})
}

// removeRules deletes rules of pods in one transaction; another DEL may be faster.
func removeRules(unwanted func([]nft.Rule) []nft.Rule) error {
	return withReader(func(r nft.Reader) error {
		return nft.Retry(func() error {
			rules, err := r.Rules(checks)
			if err != nil {
				return err
			}

			rules = unwanted(rules)
			if len(rules) == 0 {
				return nil
			}

			changes, err := nft.Begin()
			if err != nil {
				return err
			}

			for _, rule := range rules {
				deleteRule(changes, rule)
			}

			return changes.Flush()
		})
	})
}
