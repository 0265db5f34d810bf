// Package overlay keeps the tunnels of a node: VXLAN (RFC 7348) to nodes that are on no network of this node.
//
// A node has at most one tunnel interface for each family of nodes' addresses. Nothing is learnt and nothing
// is flooded: which node has which pods, and the MAC address of its interface, follow from its Node, so that
// neighbours and forwarding entries are set for good, and nodes have nothing else to tell each other.
//
//	trivet-vxlan4, -vxlan6    the interfaces, by the family of the addresses between which packets travel
//	table inet tunnel_NETWORK drops tunnel packets that no node of the cluster has sent
package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// DefaultPort is the UDP port that Linux has used for VXLAN since before there was an assigned one, as do
// most pod networks.
const DefaultPort = 8472

// identifier is the network identifier (VNI). It is not the one of other pod networks, so that a node can
// have theirs beside it.
const identifier = 117

// minMTU is what IPv6 needs; the packets of a tunnel are cut where that is more than the network takes.
const minMTU = 1280

// Overlay is where the tunnels of a network are kept.
type Overlay struct {
	Network string
	// Bridge is the interface by which packets of this node's pods come.
	Bridge string
	// Port is the UDP port, the same on all nodes.
	Port uint16
}

// Tunnel is how packets travel to nodes by their addresses of one family.
type Tunnel struct {
	// Name is that of this node, Local its address, and Pods are its pod CIDRs.
	Name  string
	Local netip.Addr
	Pods  []netip.Prefix
	// MTU is that of the network between the nodes; 0 is not known.
	MTU   int
	Peers []Peer
}

// Peer is another node.
type Peer struct {
	Name    string
	Address netip.Addr
	Pods    []netip.Prefix
}

// Outcome is what Sync found and did.
type Outcome struct {
	// Routes lead to the pods of the peers. They have no priority and no protocol.
	Routes []rtnl.Route
	// Peers counts the nodes that are reached through tunnels.
	Peers int
	// Added and Deleted count interfaces, addresses, neighbours and forwarding entries.
	Added   int
	Deleted int
}

// Sync makes the tunnels of this node the wanted ones, at most one of a family. One that cannot be made keeps
// nothing of the others from being made: its routes are missing in the outcome, unless there is an interface
// already, which an error does not cost its routes. What leads there is complete when Sync returns; the
// caller sets the routes. allowed are the addresses from which packets may come.
func (o Overlay) Sync(kernel *rtnl.Conn, wanted []Tunnel, allowed []netip.Addr) (done Outcome, err error) {
	// Before there is an interface, and after there is none.
	if len(wanted) > 0 {
		if err := o.guard(sorted(allowed)); err != nil {
			return done, errors.Join(err, done.keep(kernel, wanted...))
		}
	}

	var errs []error
	for _, name := range names {
		i := slices.IndexFunc(wanted, func(t Tunnel) bool { return t.name() == name })
		if i < 0 {
			errs = append(errs, done.remove(kernel, name))
			continue
		}
		if err := o.sync(kernel, wanted[i], &done); err != nil {
			errs = append(errs, fmt.Errorf("tunnel %s: %w", name, err))
		}
	}

	if len(wanted) == 0 {
		errs = append(errs, o.removeGuard())
	}

	return done, errors.Join(errs...)
}

func (o Overlay) sync(kernel *rtnl.Conn, t Tunnel, done *Outcome) error {
	link, err := o.ensure(kernel, t, done)
	if err != nil {
		return errors.Join(err, done.keep(kernel, t))
	}

	changes, err := t.compare(kernel, link)
	if err != nil {
		return errors.Join(err, done.keep(kernel, t))
	}

	// An entry that cannot be set must not keep the others from being set.
	var errs []error
	for _, c := range changes {
		if err := kernel.Must(c.message); err != nil && !c.isDone(err) {
			errs = append(errs, err)
			continue
		}
		done.count(c)
	}

	done.lead(t, link)
	return errors.Join(errs...)
}

func (o *Outcome) lead(t Tunnel, link rtnl.Link) {
	o.Peers += len(t.Peers)
	o.Routes = append(o.Routes, t.routes(link.Index)...)
}

// keep leaves tunnels in use that cannot be compared or changed now, as far as they work.
func (o *Outcome) keep(kernel *rtnl.Conn, tunnels ...Tunnel) error {
	for _, t := range tunnels {
		link, ok, err := t.working(kernel)
		if err != nil {
			return err
		}
		if ok {
			o.lead(t, link)
		}
	}
	return nil
}

// working returns a tunnel's interface, if there is one that is up.
func (t Tunnel) working(kernel *rtnl.Conn) (link rtnl.Link, ok bool, err error) {
	link, err = kernel.LinkByName(t.name())
	if netlink.IsNotExist(err) {
		return link, false, nil
	}
	return link, err == nil && link.Kind == rtnl.KindVXLAN && link.Up, err
}

func (o *Outcome) count(c change) {
	if c.isMissing {
		o.Added++
	} else {
		o.Deleted++
	}
}

// ensure returns the interface of a tunnel, which it makes unless there is one. One that was made for another
// address or port is made again.
func (o Overlay) ensure(kernel *rtnl.Conn, t Tunnel, done *Outcome) (rtnl.Link, error) {
	link, err := kernel.LinkByName(t.name())
	if err == nil && link.Kind != rtnl.KindVXLAN {
		return link, fmt.Errorf("an interface of this name is of kind %q: remove it", link.Kind)
	}
	if err == nil && !o.isMadeFor(link, t) {
		if err := done.remove(kernel, t.name()); err != nil {
			return link, err
		}
		err = unix.ENODEV
	}
	if err == nil && link.Up {
		return link, nil
	}
	if err != nil && !netlink.IsNotExist(err) {
		return link, err
	}

	if err != nil {
		mac := MACOf(t.Name)
		if err := kernel.Must(rtnl.NewVXLAN(t.name(), mac[:], t.mtu(), o.vxlan(t))); err != nil {
			return link, err
		}
		done.Added++
	}

	return o.open(kernel, t)
}

// open brings the interface up. A kernel without IPv6 has no link-local addresses either.
func (o Overlay) open(kernel *rtnl.Conn, t Tunnel) (rtnl.Link, error) {
	_, err := kernel.Do(rtnl.WithoutLinkLocal(t.name()))
	if err != nil {
		return rtnl.Link{}, err
	}
	link, err := kernel.LinkByName(t.name())
	if err != nil {
		return link, err
	}
	if err := kernel.Must(rtnl.SetUp(link.Index)); err != nil {
		return link, fmt.Errorf("receive at UDP port %d: %w", o.Port, err)
	}
	return link, nil
}

func (o Overlay) vxlan(t Tunnel) rtnl.VXLAN {
	return rtnl.VXLAN{ID: identifier, Local: t.Local, Port: o.Port}
}

func (o Overlay) isMadeFor(link rtnl.Link, t Tunnel) bool {
	mac := MACOf(t.Name)
	return link.VXLAN != nil && *link.VXLAN == o.vxlan(t) && slices.Equal(link.MAC, mac[:])
}

// remove removes a tunnel's interface, if there is one. Routes, neighbours and forwarding entries go with it.
func (o *Outcome) remove(kernel *rtnl.Conn, name string) error {
	link, err := kernel.LinkByName(name)
	if netlink.IsNotExist(err) || err == nil && link.Kind != rtnl.KindVXLAN {
		return nil
	}
	if err != nil {
		return err
	}
	if err := kernel.EnsureNoLink(name); err != nil {
		return err
	}
	o.Deleted++
	return nil
}

// Routes returns the routes through the tunnels that there are.
func Routes(kernel *rtnl.Conn, wanted []Tunnel) ([]rtnl.Route, error) {
	var there Outcome
	err := there.keep(kernel, wanted...)
	return there.Routes, err
}

// Watch calls changed when neighbours or forwarding entries of a tunnel may have changed, in the network
// namespace of the calling thread, until ctx ends.
func Watch(ctx context.Context, changed func()) error {
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()

	return rtnl.WatchKeptNeighbours(ctx, func(index int) {
		if index == 0 {
			changed()
			return
		}
		if link, err := kernel.LinkByIndex(index); err == nil && slices.Contains(names[:], link.Name) {
			changed()
		}
	})
}

// Remove removes all tunnels of this node.
func (o Overlay) Remove(kernel *rtnl.Conn) error {
	_, err := o.Sync(kernel, nil, nil)
	return err
}

// Findings says how the tunnels of this node differ from the wanted ones, and changes nothing.
func (o Overlay) Findings(
	kernel *rtnl.Conn, wanted []Tunnel, allowed []netip.Addr,
) (found []string, err error) {
	for _, name := range names {
		i := slices.IndexFunc(wanted, func(t Tunnel) bool { return t.name() == name })
		link, err := kernel.LinkByName(name)
		switch {
		case err != nil && !netlink.IsNotExist(err):
			return found, err
		case i < 0 && err == nil:
			found = append(found, fmt.Sprintf("tunnel %s is there, and no node is reached through it", name))
		case i < 0:
		case err != nil:
			found = append(found, fmt.Sprintf("tunnel %s is missing", name))
		case !o.isMadeFor(link, wanted[i]) || !link.Up:
			found = append(found, fmt.Sprintf("tunnel %s is not that of address %s and port %d, or down",
				name, wanted[i].Local, o.Port))

		default:
			changes, err := wanted[i].compare(kernel, link)
			if err != nil {
				return found, err
			}
			for _, c := range changes {
				found = append(found, fmt.Sprintf("tunnel %s: %s", name, c))
			}
		}
	}

	isRight := o.isUnguarded
	if len(wanted) > 0 {
		isRight = func() (bool, error) { return o.isGuarded(sorted(allowed)) }
	}
	is, err := isRight()
	if err == nil && !is {
		found = append(found, fmt.Sprintf("nftables table inet %s is not as it should be", o.tableName()))
	}
	return found, err
}
