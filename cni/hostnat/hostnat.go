// Package hostnat keeps the nftables table of one network: masquerading of what pods send out, and host
// ports. What is per pod are elements of maps and sets, never rules: a packet costs the same with one pod and
// with a thousand, and so does adding a pod.
//
//	table inet cni_NETWORK
//	  map ports4      { protocol . host port : pod address . port }
//	  map addrports4  { host address . protocol . host port : pod address . port }
//	  set hairpin4    { pod address . the same }: a pod that reaches itself by its host port
//	  set nomasq4     { destinations that see the pod's own address }
//	  (and the same for IPv6), chains for prerouting, output, postrouting
//
// An element's comment names its owner, CONTAINER/IFNAME, so that GC needs no other record. Rules are written
// with google/nftables; elements, and what is read, go over a plain socket of package netlink, which costs
// less.
package hostnat

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// Config is what the rules of a network's table depend on. Its fields are in the name of the table's marker:
// a change of them makes every node write its rules once more.
type Config struct {
	Network string
	Bridge  string
	// Subnets are those of the pods, which see each other's addresses.
	Subnets    []netip.Prefix
	Masquerade bool
	// NoMasq are destinations, beside Subnets, that see the pod's own address.
	NoMasq []netip.Prefix
	// SNAT masquerades what reaches a host port through loopback or from the same bridge.
	SNAT bool
	// HostRouted says that traffic between pods passes the host, so that replies need no masquerading to
	// come back the same way.
	HostRouted bool
	// Ports says that host ports are used.
	Ports bool
}

// Table is the table of one network in the network namespace of the thread that opened it.
type Table struct {
	want   ruleset
	kernel nft.Reader
	// changes collects the changes of a transaction of rules, and opens a socket for each one. Elements are
	// written to kernel.
	changes *nftables.Conn
}

// Open returns the table of a network. It changes nothing yet. The caller closes the table.
func Open(config Config) (*Table, error) {
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return nil, err
	}

	changes, err := nft.Begin()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare nftables socket: %w", err), conn.Close())
	}

	want := newRuleset(config)
	return &Table{
		want: want,
		kernel: nft.Reader{
			Conn:    conn,
			NFProto: unix.NFPROTO_INET,
			Table:   want.table.Name,
		},
		changes: changes,
	}, nil
}

// Close closes the connection. When elements were deleted, it waits some 10 ms for the kernel.
func (t *Table) Close() error { return t.kernel.Conn.Close() }

// tableName is the name of a network's table.
func tableName(network string) string { return nft.TableName("cni_", network) }

// tries bounds how often a transaction is put together again because another process was faster.
const tries = 20

// Ensure makes the table's rules match the configuration. Elements stay. It sends one message when there is
// nothing to do. Of several processes that find the same to do one succeeds, and the others look again.
func (t *Table) Ensure() error {
	for range tries {
		upToDate, err := t.hasMarker()
		if upToDate || err != nil {
			return err
		}

		err = t.replace()
		if err == nil || !nft.IsRace(err) {
			return err
		}
	}

	return fmt.Errorf("write nftables table %s: others keep changing it", t.want.table.Name)
}

// hasMarker reports whether the rules are those of the configuration, by the name of its marker. Somebody may
// have flushed the rules and left the chains: then the marker has no rule either.
func (t *Table) hasMarker() (bool, error) {
	rules, err := t.kernel.CountOf(t.want.marker())
	return rules == 1, err
}

// replace writes all rules in one transaction.
func (t *Table) replace() error {
	there, err := t.kernel.HasTable()
	if err != nil {
		return err
	}

	// CreateTable, unlike AddTable, fails when another process has made the table since.
	if there {
		err = t.clear()
	} else {
		t.changes.CreateTable(t.want.table)
	}

	if err != nil {
		return err
	}

	if err := t.addSets(); err != nil {
		return err
	}

	t.addChains(t.want.chains())
	if err := t.changes.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", t.want.table.Name, err)
	}

	return nil
}

// clear removes the rules and the marker of the former configuration from the table.
func (t *Table) clear() error {
	have, err := t.kernel.CountRules()
	if err != nil {
		return err
	}

	for _, name := range slices.Sorted(maps.Keys(have)) {
		c := &nftables.Chain{Table: t.want.table, Name: name}
		t.changes.FlushChain(c)
		if strings.HasPrefix(name, markerPrefix) {
			t.changes.DelChain(c)
		}
	}

	// No rule leads to them any more. The kernel does not give a chain that is there another hook.
	for _, c := range t.want.chains() {
		if _, there := have[c.name]; there && t.kernel.CheckHook(c.expected()) != nil {
			t.changes.DelChain(&nftables.Chain{Table: t.want.table, Name: c.name})
		}
	}

	return nil
}

// addSets adds the sets, and sets the destinations that see the pods' own addresses.
func (t *Table) addSets() error {
	for _, f := range t.want.families {
		for _, s := range f.perPod() {
			if err := t.changes.AddSet(s, nil); err != nil {
				return err
			}
		}

		if !t.want.config.Masquerade {
			continue
		}

		// Deleting and adding a set that a rule uses is refused; flushing it is not.
		if err := t.changes.AddSet(f.noMasq, nil); err != nil {
			return err
		}

		t.changes.FlushSet(f.noMasq)
		if err := t.changes.SetAddElements(f.noMasq, f.intervals(t.want.notMasqueraded(f))); err != nil {
			return err
		}
	}

	return nil
}

func (t *Table) addChains(chains []chain) {
	for _, c := range chains {
		t.changes.AddChain(&nftables.Chain{
			Table:    t.want.table,
			Name:     c.name,
			Type:     c.kind,
			Hooknum:  c.hook,
			Priority: c.priority,
		})
	}

	// A rule may jump to any of the chains, so all of them are there first.
	for _, c := range chains {
		for _, r := range c.rules {
			t.changes.AddRule(&nftables.Rule{
				Table: t.want.table,
				Chain: &nftables.Chain{Table: t.want.table, Name: c.name},
				Exprs: r,
			})
		}
	}
}

// Usable returns an error when nftables cannot be used here at all, and says whether the rules are there.
func (t *Table) Usable() (hasRules bool, err error) { return t.hasMarker() }
