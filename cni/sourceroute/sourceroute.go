// Package sourceroute has a container with several networks answer by the interface whose address was
// asked: each address of an interface gets a routing table of its own, and a rule that leads what it sends
// there (sbr in the words of CNI, source based routing).
package sourceroute

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Config is how the tables are made.
type Config struct {
	// Table is one that somebody else fills: the addresses get rules that lead there and nothing else. 0
	// makes tables.
	Table int
	// Gateways come instead of those of the addresses, one of each family at most.
	Gateways []netip.Addr
	// SourceHints leaves the routes to the interface's subnets in the main table, with the address to send
	// from.
	SourceHints bool
}

// Address is an address of the interface with its prefix length. Gateway may be zero.
type Address struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// firstTable is the lowest number of a table that is made.
const firstTable = 100

// Plan is what Add changes.
type Plan struct {
	Rules []rtnl.Rule
	// Routes are added, in order.
	Routes []rtnl.Route
	// Gone are the routes that leave the main table.
	Gone []rtnl.Route
}

// Observed is what there is in the container's network namespace.
type Observed struct {
	// Index is that of the interface.
	Index int
	// Routes are those of the main table that leave by the interface.
	Routes []rtnl.Route
	// Used are the numbers of tables that have routes, or rules that lead there.
	Used map[int]bool
}

// Observe looks at the namespace that the thread is in.
func Observe(pod *rtnl.Conn, index int) (o Observed, err error) {
	o.Index = index
	if o.Routes, err = pod.RoutesOf(index); err != nil {
		return o, err
	}
	if o.Used, err = pod.Tables(); err != nil {
		return o, err
	}

	rules, err := pod.Rules()
	for _, r := range rules {
		o.Used[r.Table] = true
	}

	return o, err
}

// Decide returns what has to be changed for some addresses of the interface.
func (c Config) Decide(o Observed, addresses []Address) (p Plan) {
	table := firstTable
	for _, a := range addresses {
		if c.Table != 0 {
			p.Rules = append(p.Rules, rtnl.From(a.Prefix.Addr(), c.Table))
			continue
		}

		for o.Used[table] {
			table++
		}

		p.Rules = append(p.Rules, rtnl.From(a.Prefix.Addr(), table))
		p.Routes = append(p.Routes, c.tableOf(a, table, o)...)
		table++
	}

	if c.Table == 0 {
		p.Gone = o.Routes
	}
	if c.Table == 0 && c.SourceHints {
		p.keepSubnets(o, addresses)
	}

	return p
}

// tableOf returns the routes of the table of an address: a default route, and those of the main table that
// are for it.
func (c Config) tableOf(a Address, table int, o Observed) (routes []rtnl.Route) {
	if gateway := c.gatewayOf(a); gateway.IsValid() {
		dst := prefix.Default4
		if gateway.Is6() {
			dst = prefix.Default6
		}
		routes = append(routes, rtnl.Route{
			Dst:     dst,
			Gateway: gateway,
			Index:   o.Index,
			Table:   table,
		})
	}

	subnet := a.Prefix.Masked()
	for _, r := range o.Routes {
		isGeneric := !r.Src.IsValid() && !r.Gateway.IsValid()
		if !prefix.SameFamily(r.Dst.Addr(), a.Prefix.Addr()) ||
			!isGeneric && !subnet.Contains(r.Src) && !subnet.Contains(r.Gateway) {
			continue
		}

		r.Table = table
		routes = append(routes, r)
	}

	return routes
}

func (c Config) gatewayOf(a Address) netip.Addr {
	for _, g := range c.Gateways {
		if prefix.SameFamily(g, a.Prefix.Addr()) {
			return g
		}
	}
	return a.Gateway
}

// keepSubnets leaves the routes to the subnets of the addresses in the main table, with the address to send
// from.
func (p *Plan) keepSubnets(o Observed, addresses []Address) {
	isSubnet := func(r rtnl.Route) bool { return !r.Gateway.IsValid() }
	p.Gone = slices.DeleteFunc(slices.Clone(o.Routes), isSubnet)
	for _, a := range addresses {
		p.Routes = append(p.Routes, rtnl.Route{
			Dst:   a.Prefix.Masked(),
			Src:   a.Prefix.Addr(),
			Index: o.Index,
		})
	}
}

// Apply makes the changes: what leaves the main table goes last. After an error, the rules are gone.
func (p Plan) Apply(pod *rtnl.Conn) error {
	var added, removed []*netlink.Message
	for _, r := range p.Rules {
		added = append(added, rtnl.NewRule(r))
	}
	for _, r := range p.Routes {
		added = append(added, rtnl.ReplaceRoute(r))
	}
	for _, r := range p.Gone {
		removed = append(removed, rtnl.DeleteRoute(r))
	}

	if err := pod.Must(added...); err != nil {
		return errors.Join(err, p.takeBack(pod))
	}

	errs, err := pod.Do(removed...)
	for _, failure := range errs {
		// A route can go with another one that it depends on.
		if !netlink.IsNotExist(failure) {
			err = errors.Join(err, failure)
		}
	}

	return err
}

// takeBack removes the rules and the routes of the tables that were made.
func (p Plan) takeBack(pod *rtnl.Conn) error {
	var back []*netlink.Message
	for _, r := range p.Rules {
		back = append(back, rtnl.DeleteRule(r))
	}
	for _, r := range slices.Backward(p.Routes) {
		if r.Table != 0 && r.Table != unix.RT_TABLE_MAIN {
			back = append(back, rtnl.DeleteRoute(r))
		}
	}

	errs, err := pod.Do(back...)
	for _, failure := range errs {
		if !netlink.IsNotExist(failure) {
			err = errors.Join(err, failure)
		}
	}

	return err
}

// Remove removes the rules for addresses of an interface: those that lead to a table, or to any for 0. The
// tables go with the interface.
func Remove(pod *rtnl.Conn, index, table int) error {
	addresses, err := pod.Addresses(index)
	if err != nil {
		return err
	}

	rules, err := pod.Rules()
	if err != nil {
		return err
	}

	for _, r := range rules {
		isOf := func(a netip.Prefix) bool { return prefix.Single(a.Addr()) == r.Src }
		if !slices.ContainsFunc(addresses, isOf) || table != 0 && r.Table != table {
			continue
		}
		if err := pod.Must(rtnl.DeleteRule(r)); err != nil && !netlink.IsNotExist(err) {
			return err
		}
	}

	return nil
}

// Check returns an error unless each address has a rule, that leads to a table or to any for 0.
func Check(pod *rtnl.Conn, addresses []Address, table int) error {
	rules, err := pod.Rules()
	if err != nil {
		return err
	}

	for _, a := range addresses {
		isRule := func(r rtnl.Rule) bool {
			return r.Src == prefix.Single(a.Prefix.Addr()) && (table == 0 || r.Table == table)
		}
		if !slices.ContainsFunc(rules, isRule) {
			return fmt.Errorf("no rule leads what %s sends to its routing table", a.Prefix.Addr())
		}
	}

	return nil
}
