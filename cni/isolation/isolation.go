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
	err := withTable(func(r nft.Reader) error { return check(r, bridge, p) })
	if err != nil {
		return fmt.Errorf("nftables table %s does not isolate bridge %s: %w", tableName, bridge, err)
	}
	return nil
}

func check(r nft.Reader, bridge string, p Policy) error {
	if err := r.CheckHook(base); err != nil {
		return err
	}

	elements, err := r.Lookup(set, [][]byte{nameOf(bridge)})
	if err != nil {
		return err
	}
	if len(elements) == 0 {
		return fmt.Errorf("it is not in set %s", set.Name)
	}

	there, err := r.Rules(chainName)
	if err != nil {
		return err
	}

	for _, want := range rulesOf(bridge, p) {
		has, err := nft.Has(there, unix.NFPROTO_INET, want.statements)
		if err != nil {
			return err
		}
		if !has {
			return fmt.Errorf("chain %s does not have the rule of %s", chainName, want.policy)
		}
	}

	return nil
}

// The table and its chain, in which a rule's comment names bridge and policy.
const (
	tableName = "cni_firewall"
	chainName = "isolation"
)

var table = &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}

// set has the bridges that are kept apart.
var set = &nftables.Set{Table: table, Name: "bridges", KeyType: nftables.TypeIFName}

// base is where the kernel calls the rules.
var base = nft.Chain{
	Name:     chainName,
	Hook:     nftables.ChainHookForward,
	Priority: nftables.ChainPriorityFilter,
}

// withTable calls f with a reader of the table.
func withTable(f func(nft.Reader) error) error { return nft.Read(unix.NFPROTO_INET, tableName, f) }

func commentOf(bridge string, policy Policy) string { return string(policy) + " " + bridge }

// nameOf returns the element of a bridge.
func nameOf(bridge string) []byte {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, bridge)
	return name
}

// rule is one of a bridge, that which a policy has.
type rule struct {
	policy     Policy
	statements []expr.Any
}

// rulesOf returns the rules of a bridge. Isolated has that of SameBridge, too.
func rulesOf(bridge string, policy Policy) []rule {
	drop := nft.Verdict(expr.VerdictDrop)
	in := nft.InterfaceIs(expr.MetaKeyIIFNAME, bridge)
	all := []rule{{SameBridge, slices.Concat(
		in,
		nft.InterfaceIsNot(expr.MetaKeyOIFNAME, bridge),
		nft.LoadInterface(expr.MetaKeyOIFNAME),
		nft.InSet(set),
		drop,
	)}}
	if policy == Isolated {
		out := nft.InterfaceIs(expr.MetaKeyOIFNAME, bridge)
		all = append(all, rule{Isolated, slices.Concat(in, out, drop)})
	}
	return all
}

// write adds the bridge to the set of those that are isolated, and its rules unless they are there. One that
// somebody has changed is written again.
func write(r nft.Reader, bridge string, policy Policy) error {
	there, err := r.Rules(chainName)
	if err != nil {
		return err
	}

	changes, err := nft.Begin()
	if err != nil {
		return err
	}

	changes.AddTable(table)
	chain := changes.AddChain(&nftables.Chain{
		Table:    table,
		Name:     chainName,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  base.Hook,
		Priority: base.Priority,
	})
	err = errors.Join(
		changes.AddSet(set, nil),
		changes.SetAddElements(set, []nftables.SetElement{{Key: nameOf(bridge)}}),
	)
	if err != nil {
		return err
	}

	for _, want := range rulesOf(bridge, policy) {
		own := withComment(there, commentOf(bridge, want.policy))
		has, err := nft.Has(own, unix.NFPROTO_INET, want.statements)
		if err != nil {
			return err
		}
		if has && len(own) == 1 {
			continue
		}

		for _, stale := range own {
			// It fails only for a rule without a handle.
			_ = changes.DelRule(&nftables.Rule{Table: table, Chain: chain, Handle: stale.Handle})
		}
		changes.AddRule(&nftables.Rule{
			Table:    table,
			Chain:    chain,
			Exprs:    want.statements,
			UserData: nft.Comment(commentOf(bridge, want.policy)),
		})
	}

	return changes.Flush()
}

func withComment(rules []nft.Rule, comment string) (own []nft.Rule) {
	for _, r := range rules {
		if r.Comment == nft.Cut(comment) {
			own = append(own, r)
		}
	}
	return own
}
