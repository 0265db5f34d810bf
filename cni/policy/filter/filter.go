// Package filter keeps the nftables tables by which network policies are in force on a node:
//
//	table inet policy_NETWORK
//	  chain egress            what is established passes, the rest by its source
//	  chain ingress           behind it, the same by the destination
//	  map egress4, ingress4   { pod address : goto profile }
//	  chain profileN          drops what none of its maps leads to
//	  map peersN_4            { address of a pod : what is allowed }
//	  map blocksN_4           { interval of addresses : what is allowed }
//	  set portsM              { protocol . ports }, with a chain that allows them
//	  set self4               { pod address . the same }
//	  (and maps for IPv6)
//	table bridge policy_NETWORK
//	  keeps frames from passing from pod to pod without the host
//
// What a policy changes are elements, and at times a chain, in one transaction. The node's own traffic does
// not pass the forward hook at all.
package filter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
	"github.com/trivet-node/trivet/cni/policy"
)

// Filter is the tables of one network, in the network namespace of the thread that calls Apply. Only Watch
// may be called while another method is.
type Filter struct {
	tables  [2]*nftables.Table
	numbers portNumbers

	// frames says whether the kernel has tables for bridges: nil while nobody has asked.
	frames *bool

	// have is what the kernel has: nil when that is not known, and of nil parts for nothing.
	have *[2]*layout

	// mu guards ports: those of the sockets that this process has written by.
	mu    sync.Mutex
	ports map[uint32]bool
}

// New returns the tables of a network.
func New(network string) *Filter {
	name := nft.TableName("policy_", network)
	return &Filter{
		tables: [2]*nftables.Table{
			{Name: name, Family: nftables.TableFamilyINet},
			{Name: name, Family: nftables.TableFamilyBridge},
		},
		numbers: portNumbers{of: map[policy.Ports]uint32{}},
		ports:   map[uint32]bool{},
	}
}

// Apply makes the kernel have a state, in one transaction. It reports whether there was anything to change. b
// is the zero Bridge when frames pass the host's rules anyway.
func (f *Filter) Apply(s *policy.State, b Bridge) (changed bool, err error) {
	if s.IsEmpty() {
		return f.remove()
	}

	if err := f.probe(); err != nil {
		return false, err
	}
	t, err := f.begin()
	if err != nil {
		return false, err
	}

	wanted := [2]*layout{
		layoutOf(f.tables[0], s, &f.numbers),
		layoutOfBridge(f.tables[1], b),
	}
	for i, now := range wanted {
		if i == 1 && !*f.frames {
			continue
		}

		before := f.had(i)
		if before == nil {
			t.renew(now.table)
			before = newLayout(now.table)
			if i == 0 {
				t.addCounters(now.table)
			}
		}
		t.update(before, now)
	}

	if t.changes == 0 {
		return false, nil
	}

	// Whether a transaction that fails has changed anything need not be asked: the next one replaces all.
	f.have = nil
	if err := t.commit(); err != nil {
		return false, fmt.Errorf("write nftables table %s: %w", f.name(), err)
	}

	f.have = &wanted
	return true, nil
}

// probe asks once whether the kernel has tables for bridges: without them (CONFIG_NF_TABLES_BRIDGE) policies
// are in force for what is routed. Many kernels make the table nevertheless, and refuse its chains.
func (f *Filter) probe() error {
	if f.frames != nil {
		return nil
	}

	t, err := f.begin()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: f.name() + "_probe", Family: nftables.TableFamilyBridge}
	t.renew(table)
	t.update(newLayout(table), layoutOfBridge(table, sample))
	t.DelTable(table)
	err = t.commit()

	if lacks := isLacking(err); lacks || err == nil {
		f.frames = new(!lacks)
		return nil
	}
	return fmt.Errorf("look for nftables of bridges: %w", err)
}

// sample has rules of all kinds that there are for frames.
var sample = Bridge{
	MAC:     make(net.HardwareAddr, 6),
	Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")},
}

// isLacking reports whether the kernel refuses a family, or a kind of chain or expression (ENOENT: what is
// deleted by the same transaction is there).
func isLacking(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENOENT)
}

// LacksFrames reports whether the kernel has no tables for bridges, as far as Apply has asked.
func (f *Filter) LacksFrames() bool { return f.frames != nil && !*f.frames }

// had is what the kernel has of a table, nil when all of the table is to be written.
func (f *Filter) had(i int) *layout {
	if f.have == nil {
		return nil
	}
	return f.have[i]
}

func (f *Filter) name() string { return f.tables[0].Name }

// Forget has the next Apply write everything: somebody else has changed the tables.
func (f *Filter) Forget() { f.have = nil }

// Remove removes the tables, if they are there.
func (f *Filter) Remove() error {
	_, err := f.remove()
	return err
}

func (f *Filter) remove() (changed bool, err error) {
	if f.have != nil && *f.have == [2]*layout{} {
		return false, nil
	}

	t, err := f.begin()
	if err != nil {
		return false, err
	}

	for _, table := range f.tables {
		err := nft.Read(byte(table.Family), table.Name, func(r nft.Reader) error {
			there, err := r.HasTable()
			if there {
				t.changes++
				t.DelTable(table)
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}

	f.have = nil
	if t.changes > 0 {
		if err := t.commit(); err != nil {
			return false, fmt.Errorf("remove nftables table %s: %w", f.name(), err)
		}
	}

	f.have = &[2]*layout{}
	return t.changes > 0, nil
}

// Dropped returns how many packets were dropped in each direction since the tables were written.
func (f *Filter) Dropped() (count [2]uint64, err error) {
	conn, err := nft.Begin()
	if err != nil {
		return count, err
	}

	objects, err := conn.GetNamedObjects(f.tables[0])
	if netlink.IsNotExist(err) {
		return count, nil
	}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		for _, d := range policy.Directions {
			if named.Name == counterName(d) {
				count[d] = packetsOf(named)
			}
		}
	}

	return count, err
}

// Watch calls changed when somebody else has deleted something of the tables, until ctx ends, and doubtful
// when that cannot be told: when it begins, and after messages were lost.
func (f *Filter) Watch(ctx context.Context, changed, doubtful func()) error {
	groups := netlink.Group(unix.NFNLGRP_NFTABLES)
	return netlink.WatchSenders(ctx, netlink.Netfilter, groups, func(port uint32, kind uint16, body []byte) {
		switch {
		case kind == 0:
			doubtful()
		case nft.DeletesFrom(f.name(), kind, body) && !f.isOwn(port):
			changed()
		}
	})
}

// own remembers the port of a socket that this process writes by.
func (f *Filter) own(conn *mdnetlink.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}

	var bound unix.Sockaddr
	var named error
	if err := raw.Control(func(fd uintptr) { bound, named = unix.Getsockname(int(fd)) }); err != nil {
		return err
	}
	address, ok := bound.(*unix.SockaddrNetlink)
	if named != nil || !ok {
		return errors.Join(named, errors.New("look up port of netlink socket"))
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	// Only the messages of a transaction that has just ended are still to come.
	if len(f.ports) > maxPorts {
		clear(f.ports)
	}
	f.ports[address.Pid] = true
	return nil
}

const maxPorts = 64

func (f *Filter) isOwn(port uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ports[port]
}

func packetsOf(o *nftables.NamedObj) uint64 {
	counter, ok := o.Obj.(*expr.Counter)
	if !ok {
		return 0
	}
	return counter.Packets
}
