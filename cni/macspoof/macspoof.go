// Package macspoof drops what a container sends with another MAC address than its own, in the table of
// upstream's bridge plugin and with its chains, so that each of the two can remove what the other one has
// made:
//
//	table bridge nat
//	  chain PREROUTING: iifname VETH jump cni-br-iface-ID
//	  chain cni-br-iface-ID: jump cni-br-iface-ID-mac
//	  chain cni-br-iface-ID-mac: ether saddr MAC return; drop
package macspoof

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/rtnl"
)

const (
	tableName   = "nat"
	prerouting  = "PREROUTING"
	chainPrefix = "cni-br-iface-"
	macSuffix   = "-mac"
	mark        = "macspoofchk-"
)

var table = &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}

// Guard is what an attachment may send.
type Guard struct {
	Owner ipam.Owner
	// Veth is the name of the host's end.
	Veth string
	MAC  net.HardwareAddr
}

// idOf is what the chains of an attachment are named after.
func idOf(o ipam.Owner) string { return o.ContainerID + "-" + o.IfName }

// withReader calls f with a connection that reads the table.
func withReader(f func(nft.Reader) error) error { return nft.Read(unix.NFPROTO_BRIDGE, tableName, f) }

// Ensure writes the rules of an attachment, in place of those that it has.
func (g Guard) Ensure() error {
	err := withReader(func(r nft.Reader) error {
		return nft.Retry(func() error { return g.write(r) })
	})
	if err != nil {
		return fmt.Errorf("drop other MAC addresses than %s of %s: %w", g.MAC, g.Owner, explain(err))
	}
	return nil
}

// explain says what a kernel lacks that knows no filter of bridges.
func explain(err error) error {
	for _, unknown := range []error{unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT} {
		if errors.Is(err, unknown) {
			return fmt.Errorf("the kernel filters no bridges (module nf_tables_bridge): %w", err)
		}
	}
	return err
}

func (g Guard) write(r nft.Reader) error {
	stale, err := r.Rules(prerouting)
	if err != nil {
		return err
	}

	changes, err := nftables.New()
	if err != nil {
		return err
	}

	accept := nftables.ChainPolicyAccept
	changes.AddTable(table)
	changes.AddChain(&nftables.Chain{
		Table:    table,
		Name:     prerouting,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  base.Hook,
		Priority: base.Priority,
		Policy:   &accept,
	})

	id := idOf(g.Owner)
	own := g.chains()
	for _, c := range own {
		changes.FlushChain(changes.AddChain(&nftables.Chain{Table: table, Name: c.Name}))
	}
	for _, rule := range ofOwner(stale, id) {
		deleteRule(changes, rule)
	}

	// Last, what leads to the others.
	entry := nft.Chain{Name: prerouting, Rules: [][]expr.Any{g.entry()}}
	for _, c := range append(own, entry) {
		for _, r := range c.Rules {
			changes.AddRule(&nftables.Rule{
				Table:    table,
				Chain:    &nftables.Chain{Table: table, Name: c.Name},
				Exprs:    r,
				UserData: nft.Comment(mark + id),
			})
		}
	}

	return changes.Flush()
}

// base is where the kernel calls the rules.
var base = nft.Chain{
	Name:     prerouting,
	Hook:     nftables.ChainHookPrerouting,
	Priority: nftables.ChainPriorityRef(-300),
}

// chains are those of the attachment, that which others lead to first.
func (g Guard) chains() []nft.Chain {
	id := idOf(g.Owner)
	mac := nft.Chain{
		Name: chainPrefix + id + macSuffix,
		Rules: [][]expr.Any{
			slices.Concat(nft.IsFromMAC(g.MAC), nft.Verdict(expr.VerdictReturn)),
			nft.Verdict(expr.VerdictDrop),
		},
	}
	return []nft.Chain{mac, {Name: chainPrefix + id, Rules: [][]expr.Any{nft.Jump(mac.Name)}}}
}

// entry leads what the attachment sends to its chains.
func (g Guard) entry() []expr.Any {
	return slices.Concat(
		nft.InterfaceIs(expr.MetaKeyIIFNAME, g.Veth),
		nft.Jump(chainPrefix+idOf(g.Owner)),
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

func ofOwner(rules []nft.Rule, id string) (own []nft.Rule) {
	for _, r := range rules {
		if r.Comment == nft.Cut(mark+id) {
			own = append(own, r)
		}
	}
	return own
}

// Check returns an error unless the attachment has its rules, as they were written.
func (g Guard) Check() error {
	err := withReader(g.check)
	if err != nil {
		const format = "what %s sends with another MAC address than its own is not dropped: %w"
		return fmt.Errorf(format, g.Owner, err)
	}
	return nil
}

func (g Guard) check(r nft.Reader) error {
	if err := r.CheckHook(base); err != nil {
		return err
	}

	entries, err := r.Rules(prerouting)
	if err != nil {
		return err
	}

	leads, err := nft.Has(ofOwner(entries, idOf(g.Owner)), unix.NFPROTO_BRIDGE, g.entry())
	if err != nil {
		return err
	}
	if !leads {
		return fmt.Errorf("no rule of chain %s of nftables table %s leads there from interface %s",
			prerouting, tableName, g.Veth)
	}

	for _, c := range g.chains() {
		if err := r.Compare(c); err != nil {
			return err
		}
	}

	return nil
}

// Remove removes the rules of an attachment; none is success.
func Remove(o ipam.Owner) error {
	return withReader(func(r nft.Reader) error {
		return nft.Retry(func() error { return remove(r, idOf(o)) })
	})
}

func remove(r nft.Reader, id string) error {
	chains := []string{chainPrefix + id, chainPrefix + id + macSuffix}
	var there []string
	for _, name := range chains {
		rules, err := r.CountOf(name)
		if err != nil {
			return err
		}
		if rules >= 0 {
			there = append(there, name)
		}
	}

	entries, err := r.Rules(prerouting)
	if err != nil {
		return err
	}

	entries = ofOwner(entries, id)
	if len(there) == 0 && len(entries) == 0 {
		return nil
	}

	changes, err := nftables.New()
	if err != nil {
		return err
	}

	for _, rule := range entries {
		deleteRule(changes, rule)
	}

	// The first of the chains jumps to the second.
	for _, name := range there {
		c := &nftables.Chain{Table: table, Name: name}
		changes.FlushChain(c)
		changes.DelChain(c)
	}

	return changes.Flush()
}

// Keep removes the rules of interfaces that do not exist any more, of whichever network: they guard nothing.
// The rules are read first, and each interface is looked up then: an ADD of another network may be making
// some.
func Keep(host *rtnl.Conn) error {
	return withReader(func(r nft.Reader) error {
		rules, err := r.Rules(prerouting)
		if err != nil {
			return err
		}

		var errs []error
		for _, rule := range rules {
			id, ours := strings.CutPrefix(rule.Comment, mark)
			if !ours || rule.Interface == "" {
				continue
			}

			_, err := host.LinkByName(rule.Interface)
			if netlink.IsNotExist(err) {
				err = nft.Retry(func() error { return remove(r, id) })
			}

			errs = append(errs, err)
		}

		return errors.Join(errs...)
	})
}
