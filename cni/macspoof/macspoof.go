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
		return fmt.Errorf("drop other MAC addresses than %s of %s: %w", g.MAC, g.Owner, err)
	}
	return nil
}

func (g Guard) write(r nft.Reader) error {
	stale, err := r.Rules(prerouting)
	if err != nil {
		return err
	}

	changes, err := nft.Begin()
	if err != nil {
		return err
	}

	accept := nftables.ChainPolicyAccept
	changes.AddTable(table)
	entry := changes.AddChain(&nftables.Chain{
		Table:    table,
		Name:     prerouting,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(-300),
		Policy:   &accept,
	})

	id := idOf(g.Owner)
	own := changes.AddChain(&nftables.Chain{Table: table, Name: chainPrefix + id})
	mac := changes.AddChain(&nftables.Chain{Table: table, Name: chainPrefix + id + macSuffix})
	changes.FlushChain(own)
	changes.FlushChain(mac)
	for _, rule := range ofOwner(stale, id) {
		deleteRule(changes, rule)
	}

	add := func(c *nftables.Chain, statements ...[]expr.Any) {
		changes.AddRule(&nftables.Rule{
			Table:    table,
			Chain:    c,
			Exprs:    slices.Concat(statements...),
			UserData: nft.Comment(mark + id),
		})
	}

	add(mac, nft.IsFromMAC(g.MAC), nft.Verdict(expr.VerdictReturn))
	add(mac, nft.Verdict(expr.VerdictDrop))
	add(own, nft.Jump(mac.Name))
	add(entry, nft.InterfaceIs(expr.MetaKeyIIFNAME, g.Veth), nft.Jump(own.Name))
	return changes.Flush()
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

// Check returns an error unless the attachment has its rules.
func (g Guard) Check() error {
	id := idOf(g.Owner)
	return withReader(func(r nft.Reader) error {
		entries, err := r.Rules(prerouting)
		if err != nil {
			return err
		}

		rules, err := r.Rules(chainPrefix+id, chainPrefix+id+macSuffix)
		if err != nil {
			return err
		}
		if len(ofOwner(entries, id)) == 0 || len(rules) < 3 {
			return fmt.Errorf("what %s sends with another MAC address than its own is not dropped", g.Owner)
		}

		return nil
	})
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

	changes, err := nft.Begin()
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
