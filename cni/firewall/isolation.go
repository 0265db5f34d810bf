package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/nft"
)

// Isolate keeps the containers of a bridge apart from those of other bridges that are isolated as well, and
// with Isolated from each other. As upstream, every backend but nftables does it by iptables.
func (c Config) Isolate(bridge string, addresses []netip.Addr) error {
	switch c.Policy {
	case "", Open:
		return nil
	}
	if bridge == "" {
		return fmt.Errorf("ingressPolicy %s needs a bridge as the first interface of prevResult", c.Policy)
	}
	if c.Backend == NFTables {
		return isolateNFTables(bridge, c.Policy)
	}

	var families []iptables.Family
	for _, family := range iptables.Families {
		if len(ofFamily(addresses, family)) > 0 {
			families = append(families, family)
		}
	}

	return isolateIPTables(bridge, c.Policy, families)
}

// CheckIsolation returns an error unless Isolate's rules are there.
func (c Config) CheckIsolation(bridge string) error {
	if c.Backend != NFTables || c.Policy == "" || c.Policy == Open {
		return nil
	}
	return withTable(func(r nft.Reader) error {
		rules, err := r.Rules(isolation)
		if err == nil && !has(rules, bridge, c.Policy) {
			err = fmt.Errorf("nftables table %s does not isolate bridge %s", tableName, bridge)
		}
		return err
	})
}

// The table and its chain, in which a rule's comment names bridge and policy.
const (
	tableName = "cni_firewall"
	isolation = "isolation"
	bridges   = "bridges"
)

// withTable calls f with a reader of the table.
func withTable(f func(nft.Reader) error) error { return nft.Read(unix.NFPROTO_INET, tableName, f) }

func commentOf(bridge string, policy Policy) string { return string(policy) + " " + bridge }

func has(rules []nft.Rule, bridge string, policy Policy) bool {
	return slices.ContainsFunc(rules, func(r nft.Rule) bool { return r.Comment == commentOf(bridge, policy) })
}

func isolateNFTables(bridge string, policy Policy) error {
	return withTable(func(r nft.Reader) error {
		err := nft.Retry(func() error { return writeIsolation(r, bridge, policy) })
		if err != nil {
			return fmt.Errorf("isolate bridge %s in nftables table %s: %w", bridge, tableName, err)
		}
		return nil
	})
}

// writeIsolation adds the bridge to the set of those that are isolated, and its rules unless they are there.
func writeIsolation(r nft.Reader, bridge string, policy Policy) error {
	rules, err := r.Rules(isolation)
	if err != nil {
		return err
	}

	changes, err := nftables.New()
	if err != nil {
		return err
	}

	table := changes.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	set := &nftables.Set{Table: table, Name: bridges, KeyType: nftables.TypeIFName}
	chain := changes.AddChain(&nftables.Chain{
		Table:    table,
		Name:     isolation,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter,
	})

	name := make([]byte, unix.IFNAMSIZ)
	copy(name, bridge)
	err = errors.Join(
		changes.AddSet(set, nil),
		changes.SetAddElements(set, []nftables.SetElement{{Key: name}}),
	)
	if err != nil {
		return err
	}

	add := func(p Policy, statements ...[]expr.Any) {
		if has(rules, bridge, p) {
			return
		}
		changes.AddRule(&nftables.Rule{
			Table:    table,
			Chain:    chain,
			Exprs:    slices.Concat(statements...),
			UserData: nft.Comment(commentOf(bridge, p)),
		})
	}

	drop := nft.Verdict(expr.VerdictDrop)
	in := nft.InterfaceIs(expr.MetaKeyIIFNAME, bridge)
	add(SameBridge, in, nft.InterfaceIsNot(expr.MetaKeyOIFNAME, bridge),
		nft.LoadInterface(expr.MetaKeyOIFNAME), nft.InSet(set), drop)
	if policy == Isolated {
		add(Isolated, in, nft.InterfaceIs(expr.MetaKeyOIFNAME, bridge), drop)
	}

	return changes.Flush()
}
