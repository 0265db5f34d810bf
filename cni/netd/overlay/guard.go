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
// what does not come from a node to which there is a tunnel: packets of strangers to this node, and those of
// pods to any node, which masquerading would give the address of this one.

func (o Overlay) tableName() string { return nft.TableName("tunnel_", o.Network) }

// ends returns the addresses of both ends of all tunnels, in order.
func ends(tunnels []Tunnel) (all []netip.Addr) {
	for _, t := range tunnels {
		all = append(all, t.Local)
		for _, p := range t.Peers {
			all = append(all, p.Address)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// marker returns the name of a chain with one rule that says which guard the table holds: one cheap message
// asks for it, and the rule goes with the others when somebody flushes the table.
func (o Overlay) marker(tunnels []Tunnel) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1 %d %v", o.Port, ends(tunnels)))
	return "config_" + hex.EncodeToString(sum[:6])
}

// isGuarded reports whether the table is that of the tunnels, or not there if there are none.
func (o Overlay) isGuarded(tunnels []Tunnel) (is bool, err error) {
	err = nft.Read(unix.NFPROTO_INET, o.tableName(), func(r nft.Reader) error {
		if len(tunnels) == 0 {
			there, err := r.HasTable()
			is = !there
			return err
		}

		rules, err := r.CountOf(o.marker(tunnels))
		if err != nil || rules != 1 {
			return err
		}
		have, err := nodesOf(r, &nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet})
		is = slices.Equal(have, ends(tunnels))
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
func (o Overlay) guard(tunnels []Tunnel) error {
	err := nft.Retry(func() error {
		isGuarded, err := o.isGuarded(tunnels)
		if err != nil || isGuarded {
			return err
		}
		c, err := nftables.New()
		if err != nil {
			return err
		}

		// Adding a table that is there is no error, and deleting one that is not there would be.
		table := &nftables.Table{Name: o.tableName(), Family: nftables.TableFamilyINet}
		c.AddTable(table)
		c.DelTable(table)
		c.AddTable(table)
		if err := o.addRules(c, table, tunnels); err != nil {
			return err
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("guard UDP port %d of tunnels: %w", o.Port, err)
	}
	return nil
}

func (o Overlay) addRules(c *nftables.Conn, table *nftables.Table, tunnels []Tunnel) error {
	nodes, err := addNodes(c, table, ends(tunnels))
	if err != nil {
		return err
	}

	// Packets to this node, and those that it forwards.
	for name, hook := range map[string]*nftables.ChainHook{
		"input":   nftables.ChainHookInput,
		"forward": nftables.ChainHookForward,
	} {
		chain := c.AddChain(&nftables.Chain{
			Table:    table,
			Name:     name,
			Type:     nftables.ChainTypeFilter,
			Hooknum:  hook,
			Priority: nftables.ChainPriorityFilter,
		})
		for i, f := range []nft.Family{nft.V4, nft.V6} {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(
				f.IsFamily(),
				nft.IsToPort(unix.IPPROTO_UDP, o.Port),
				f.LoadAddress(f.Destination, nft.Reg0),
				nft.InSet(nodes[i]),
				f.LoadAddress(f.Source, nft.Reg0),
				nft.NotInSet(nodes[i]),
				nft.Verdict(expr.VerdictDrop),
			)})
		}
	}

	marker := c.AddChain(&nftables.Chain{Table: table, Name: o.marker(tunnels)})
	c.AddRule(&nftables.Rule{Table: table, Chain: marker, Exprs: nft.Verdict(expr.VerdictReturn)})
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

	sets = setsOf(table)
	for i, s := range sets {
		if err := c.AddSet(s, elements[i]); err != nil {
			return sets, err
		}
	}
	return sets, nil
}

// removeGuard removes the table, if there is one.
func (o Overlay) removeGuard() error {
	isGone, err := o.isGuarded(nil)
	if err != nil || isGone {
		return err
	}
	c, err := nftables.New()
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
