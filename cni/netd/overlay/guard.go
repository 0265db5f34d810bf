package overlay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// A packet out of a tunnel may have any source, and VXLAN has no proof of who sent it. So the guard drops
// packets of the tunnels' network identifier that no node has sent, to whatever address: the kernel takes
// them at every one of this node, and masquerading would give those of pods to other nodes the address of
// this one. What comes by the pods' bridge is dropped from any source, since a pod can send from a node's
// address.
// Packets of other programs' tunnels at the same port have other identifiers.

func (o Overlay) tableName() string { return nft.TableName("tunnel_", o.Network) }

// sorted returns each of some addresses once, in order.
func sorted(all []netip.Addr) []netip.Addr {
	all = slices.Clone(all)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// marker returns the name of a chain with one rule that says which guard the table holds: one cheap message
// asks for it, and the rule goes with the others when somebody flushes the table.
func (o Overlay) marker(allowed []netip.Addr) string {
	const version = 2
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d %q %v", version, o.Port, o.Bridge, allowed))
	return "config_" + hex.EncodeToString(sum[:6])
}

// isGuarded reports whether the table is the one that lets pass what comes from some addresses, in order.
func (o Overlay) isGuarded(allowed []netip.Addr) (is bool, err error) {
	err = nft.Read(unix.NFPROTO_INET, o.tableName(), func(r nft.Reader) error {
		rules, err := r.CountOf(o.marker(allowed))
		if err != nil || rules != 1 {
			return err
		}
		have, err := nodesOf(r, &nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet})
		is = slices.Equal(have, allowed)
		return err
	})
	return is, err
}

// isUnguarded reports whether there is no table.
func (o Overlay) isUnguarded() (is bool, err error) {
	err = nft.Read(unix.NFPROTO_INET, o.tableName(), func(r nft.Reader) error {
		there, err := r.HasTable()
		is = !there
		return err
	})
	return is, err
}

// nodesOf returns the elements of the sets, in order.
func nodesOf(r nft.Reader, table *nftables.Table) (all []netip.Addr, err error) {
	for _, set := range setsOf(table) {
		elements, err := r.Elements(set)
		if netlink.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all, nil
}

// guard writes the table, unless it is there.
func (o Overlay) guard(allowed []netip.Addr) error {
	err := nft.Retry(func() error {
		isGuarded, err := o.isGuarded(allowed)
		if err != nil || isGuarded {
			return err
		}
		c, err := nft.Begin()
		if err != nil {
			return err
		}

		// Adding a table that is there is no error, and deleting one that is not there would be.
		table := &nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet}
		c.AddTable(table)
		c.DelTable(table)
		c.AddTable(table)
		if err := o.addRules(c, table, allowed); err != nil {
			return err
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("guard UDP port %d of tunnels: %w", o.Port, err)
	}
	return nil
}

func (o Overlay) addRules(c *nftables.Conn, table *nftables.Table, allowed []netip.Addr) error {
	nodes, err := addNodes(c, table, allowed)
	if err != nil {
		return err
	}

	// Packets to this node, and those that it forwards.
	for i, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookForward} {
		chain := c.AddChain(&nftables.Chain{
			Table:    table,
			Name:     []string{"input", "forward"}[i],
			Type:     nftables.ChainTypeFilter,
			Hooknum:  hook,
			Priority: nftables.ChainPriorityFilter,
		})
		ofTunnels := slices.Concat(nft.IsToPort(unix.IPPROTO_UDP, o.Port), nft.IsOfVXLAN(identifier))
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(
			ofTunnels,
			nft.InterfaceIs(expr.MetaKeyIIFNAME, o.Bridge),
			nft.Verdict(expr.VerdictDrop),
		)})
		for i, f := range []nft.Family{nft.V4, nft.V6} {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(
				f.IsFamily(),
				ofTunnels,
				f.LoadAddress(f.Source, nft.Reg0),
				nft.NotInSet(nodes[i]),
				nft.Verdict(expr.VerdictDrop),
			)})
		}
	}

	// A table that asks for connections has the kernel put fragments together before the chains see them: a
	// first one may be too short for the identifier.
	marker := c.AddChain(&nftables.Chain{Table: table, Name: o.marker(allowed)})
	c.AddRule(&nftables.Rule{Table: table, Chain: marker, Exprs: slices.Concat(
		nft.IsKnown(),
		nft.Verdict(expr.VerdictReturn),
	)})
	return nil
}

// setsOf returns the sets of addresses of IPv4 and of IPv6.
func setsOf(table *nftables.Table) (sets [2]*nftables.Set) {
	for i, kind := range []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr} {
		sets[i] = &nftables.Set{
			Table:   table,
			ID:      uint32(i + 1),
			Name:    []string{"nodes4", "nodes6"}[i],
			KeyType: kind,
		}
	}
	return sets
}

// addNodes adds the sets with their addresses.
func addNodes(c *nftables.Conn, table *nftables.Table, all []netip.Addr) (sets [2]*nftables.Set, err error) {
	var elements [2][]nftables.SetElement
	for _, a := range all {
		i := 0
		if a.Is6() {
			i = 1
		}
		elements[i] = append(elements[i], nftables.SetElement{Key: a.AsSlice()})
	}

	// A message holds some two thousand elements.
	const most = 1000
	sets = setsOf(table)
	for i, s := range sets {
		if err := c.AddSet(s, nil); err != nil {
			return sets, err
		}
		for part := range slices.Chunk(elements[i], most) {
			if err := c.SetAddElements(s, part); err != nil {
				return sets, err
			}
		}
	}
	return sets, nil
}

// removeGuard removes the table, if there is one.
func (o Overlay) removeGuard() error {
	isGone, err := o.isUnguarded()
	if err != nil || isGone {
		return err
	}
	c, err := nft.Begin()
	if err != nil {
		return err
	}
	c.DelTable(&nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet})
	if err := c.Flush(); err != nil && !netlink.IsNotExist(err) {
		return err
	}
	return nil
}

// WatchGuard calls changed when something may have been deleted from the guard's table, in the network
// namespace of the calling thread, until ctx ends.
func (o Overlay) WatchGuard(ctx context.Context, changed func()) error {
	return nft.WatchDeletions(ctx, o.tableName(), changed)
}
