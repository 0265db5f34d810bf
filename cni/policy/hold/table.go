package hold

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// table is the nftables table of the held addresses of a network.
type table struct {
	*nftables.Table
	// sets are held4 and held6.
	sets [2]*nftables.Set
}

func (n Network) table() table {
	t := table{Table: &nftables.Table{
		Name:   nft.TableName("hold_", n.Name),
		Family: nftables.TableFamilyINet,
	}}
	for i, kind := range []nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr} {
		t.sets[i] = &nftables.Set{
			Table:   t.Table,
			ID:      uint32(i + 1),
			Name:    []string{"held4", "held6"}[i],
			KeyType: kind,
		}
	}
	return t
}

func (t table) setOf(a netip.Addr) *nftables.Set {
	if a.Is4() {
		return t.sets[0]
	}
	return t.sets[1]
}

// read calls f with a reader of the table, if there is one.
func (t table) read(f func(nft.Reader) error) error {
	return nft.Read(unix.NFPROTO_INET, t.Name, func(r nft.Reader) error {
		there, err := r.HasTable()
		if err != nil || !there {
			return err
		}
		if err := f(r); !netlink.IsNotExist(err) {
			return err
		}
		return nil
	})
}

// hold adds addresses to the sets, and the table with them if there is none. The caller holds the pool's
// lock.
func (n Network) hold(addresses []netip.Addr) error {
	t := n.table()
	err := nft.Retry(func() error {
		there := false
		if err := t.read(func(nft.Reader) error { there = true; return nil }); err != nil {
			return err
		}

		c, err := nft.Begin()
		if err != nil {
			return err
		}
		if !there {
			if err := t.create(c); err != nil {
				return err
			}
		}
		for _, a := range addresses {
			element := nftables.SetElement{Key: a.AsSlice()}
			if err := c.SetAddElements(t.setOf(a), []nftables.SetElement{element}); err != nil {
				return err
			}
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("hold a pod until its network policies are in force: %w", err)
	}
	return nil
}

// create makes the table with its rules.
func (t table) create(c *nftables.Conn) error {
	c.CreateTable(t.Table)
	forward := c.AddChain(&nftables.Chain{
		Table:    t.Table,
		Name:     "forward",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter,
	})

	for i, f := range []nft.Family{nft.V4, nft.V6} {
		if err := c.AddSet(t.sets[i], nil); err != nil {
			return err
		}
		for _, side := range []uint32{f.Source, f.Destination} {
			c.AddRule(&nftables.Rule{Table: t.Table, Chain: forward, Exprs: slices.Concat(
				f.IsFamily(),
				f.LoadAddress(side, nft.Reg0),
				nft.InSet(t.sets[i]),
				nft.Verdict(expr.VerdictDrop),
			)})
		}
	}

	return nil
}

// Held returns the addresses that are held.
func (n Network) Held() (all []netip.Addr, err error) {
	t := n.table()
	err = t.read(func(r nft.Reader) error {
		for _, set := range t.sets {
			elements, err := r.Elements(set)
			if err != nil {
				return err
			}
			for _, e := range elements {
				if a, ok := netip.AddrFromSlice(e.Key); ok {
					all = append(all, a)
				}
			}
		}
		return nil
	})
	return all, err
}

// heldOf returns those of some addresses that are held, however many others are.
func (t table) heldOf(addresses []netip.Addr) (held []netip.Addr, err error) {
	keys := map[*nftables.Set][][]byte{}
	for _, a := range addresses {
		keys[t.setOf(a)] = append(keys[t.setOf(a)], a.AsSlice())
	}

	err = t.read(func(r nft.Reader) error {
		for set, some := range keys {
			found, err := r.Lookup(set, some)
			if err != nil {
				return err
			}
			for key := range found {
				a, _ := netip.AddrFromSlice([]byte(key))
				held = append(held, a)
			}
		}
		return nil
	})
	return held, err
}

// Release lets addresses go, of which some may not be held.
func (n Network) Release(addresses []netip.Addr) error {
	t := n.table()
	return nft.Retry(func() error {
		held, err := t.heldOf(addresses)
		if err != nil {
			return err
		}

		c, err := nft.Begin()
		if err != nil {
			return err
		}
		for _, a := range held {
			element := nftables.SetElement{Key: a.AsSlice()}
			if err := c.SetDeleteElements(t.setOf(a), []nftables.SetElement{element}); err != nil {
				return err
			}
		}
		return c.Flush()
	})
}

// Tidy removes the table when no address is held and no namespace has policies.
func (n Network) Tidy() error {
	there := false
	err := n.table().read(func(nft.Reader) error { there = true; return nil })
	if err != nil || !there {
		return err
	}

	return n.Pool.Locked(func() error {
		held, err := n.Held()
		if err != nil || len(held) > 0 {
			return err
		}
		return n.table().remove()
	})
}

// remove removes the table, if there is one. The caller holds the pool's lock.
func (t table) remove() error {
	return t.read(func(nft.Reader) error {
		c, err := nft.Begin()
		if err != nil {
			return err
		}
		c.DelTable(t.Table)
		return c.Flush()
	})
}

// Await waits until addresses are let go, if somebody is there to do so, and not for long: after that their
// rules come while the pod runs.
func (n Network) Await(addresses []netip.Addr) error {
	if !n.isServed() {
		return nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()

	var failed error
	look := func(uint16, []byte) {
		held, err := n.table().heldOf(addresses)
		if err != nil || len(held) == 0 {
			failed = err
			cancel()
		}
	}
	err := netlink.Watch(ctx, netlink.Netfilter, netlink.Group(unix.NFNLGRP_NFTABLES), look)
	if ctx.Err() != nil {
		err = nil
	}
	return errors.Join(failed, err)
}

// Watch calls changed when an address is held, until ctx ends.
func (n Network) Watch(ctx context.Context, changed func()) error {
	name := n.table().Name
	groups := netlink.Group(unix.NFNLGRP_NFTABLES)
	return netlink.Watch(ctx, netlink.Netfilter, groups, func(kind uint16, body []byte) {
		const added = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM
		if kind == 0 || kind == added && nft.IsOf(name, body) {
			changed()
		}
	})
}
