// Package isolation keeps the containers of a bridge apart from those of other bridges that are isolated as
// well, and from each other, by an nftables table of its own: ingressPolicy of firewall and of trivet-cni.
package isolation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/nft"
)

// Policy says who may begin connections to the containers of a bridge. "" is Open.
type Policy string

// The policies.
const (
	Open       Policy = "open"
	SameBridge Policy = "same-bridge"
	Isolated   Policy = "isolated"
)

// ParsePolicy returns the policy of a name.
func ParsePolicy(name string) (Policy, error) {
	switch p := Policy(name); p {
	case "", Open, SameBridge, Isolated:
		return p, nil
	}
	return "", fmt.Errorf("%q is not one of open, same-bridge, isolated", name)
}

// IsOpen reports whether there is nothing to keep apart.
func (p Policy) IsOpen() bool { return p == "" || p == Open }

// Ensure keeps the containers of a bridge as far apart as the policy says.
func Ensure(bridge string, p Policy) error {
	if p.IsOpen() {
		return nil
	}
	return withTable(func(r nft.Reader) error {
		err := nft.Retry(func() error { return write(r, bridge, p) })
		if err != nil {
			return fmt.Errorf("isolate bridge %s in nftables table %s: %w", bridge, tableName, err)
		}
		return nil
	})
}

// Check returns an error unless Ensure's rules are there.
func Check(bridge string, p Policy) error {
	if p.IsOpen() {
		return nil
	}
	return withTable(func(r nft.Reader) error {
		rules, err := r.Rules(chainName)
		if err == nil && !has(rules, bridge, p) {
			err = fmt.Errorf("nftables table %s does not isolate bridge %s", tableName, bridge)
		}
		return err
	})
}

// The table and its chain, in which a rule's comment names bridge and policy.
const (
	tableName = "cni_firewall"
	chainName = "isolation"
	bridges   = "bridges"
)

// withTable calls f with a reader of the table.
func withTable(f func(nft.Reader) error) error { return nft.Read(unix.NFPROTO_INET, tableName, f) }

func commentOf(bridge string, policy Policy) string { return string(policy) + " " + bridge }

func has(rules []nft.Rule, bridge string, policy Policy) bool {
	return slices.ContainsFunc(rules, func(r nft.Rule) bool { return r.Comment == commentOf(bridge, policy) })
}

// write adds the bridge to the set of those that are isolated, and its rules unless they are there.
func write(r nft.Reader, bridge string, policy Policy) error {
	rules, err := r.Rules(chainName)
	if err != nil {
		return err
	}

	changes, err := nft.Begin()
	if err != nil {
		return err
	}

	table := changes.AddTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyINet})
	set := &nftables.Set{Table: table, Name: bridges, KeyType: nftables.TypeIFName}
	chain := changes.AddChain(&nftables.Chain{
		Table:    table,
		Name:     chainName,
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
