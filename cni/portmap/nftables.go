package portmap

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// The names of the table, one for each family, and of its chains. hostIPPorts is where older versions of
// upstream have rules. guard is ours: it keeps containers from the loopback addresses of the host, which
// route_localnet lets them reach.
const (
	tableName   = "cni_hostport"
	hostPorts   = "hostports"
	hostIPPorts = "hostip_hostports"
	allPorts    = "hostports_all"
	masquerades = "masquerading"
	guard       = "trivet_loopback"
	prerouting  = "prerouting"
	output      = "output"
)

// table is the one of a family.
type table struct {
	nft.Family
	reader nft.Reader
	nft    *nftables.Table
}

// eachTable calls f with the tables of both families.
func eachTable(f func(table) error) error {
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	return errors.Join(f(tableOf(conn, nft.V4)), f(tableOf(conn, nft.V6)))
}

func tableOf(conn *netlink.Conn, f nft.Family) table {
	return table{
		Family: f,
		reader: nft.Reader{
			Conn:    conn,
			NFProto: f.NFProto,
			Table:   tableName,
		},
		nft: &nftables.Table{Name: tableName, Family: nftables.TableFamily(f.NFProto)},
	}
}

func (t table) is6() bool { return t.NFProto == unix.NFPROTO_IPV6 }

func (p Pod) publishNFTables() error {
	return eachTable(func(t table) error {
		ports, own, ok := p.ofFamily(t.is6())
		if !ok {
			return nil
		}
		if err := nft.Retry(func() error { return p.write(t, ports, own.Addr()) }); err != nil {
			return fmt.Errorf("publish host ports of %s: %w", p.Owner, err)
		}
		return p.writeConditional(t, ports)
	})
}

// write adds the rules of the pod in one transaction; the rules with conditions are nft's to write. Those
// that the container has already stay: they may be of another attachment of it.
func (p Pod) write(t table, ports []hostnat.Port, pod netip.Addr) error {
	entries, err := t.reader.CountOf(prerouting)
	if err != nil {
		return err
	}

	changes, err := nft.Begin()
	if err != nil {
		return err
	}

	t.addChains(changes, entries > 0)
	if !t.is6() && t.reader.Compare(t.guards()) != nil {
		t.addGuard(changes)
	}

	add := func(chain, comment string, statements ...[]expr.Any) {
		changes.AddRule(&nftables.Rule{
			Table:    t.nft,
			Chain:    &nftables.Chain{Table: t.nft, Name: chain},
			Exprs:    slices.Concat(statements...),
			UserData: nft.Comment(comment),
		})
	}

	id := p.Owner.ContainerID
	mark := nft.InterfaceIs(expr.MetaKeyIIFNAME, markOf(p.Network))
	add(hostIPPorts, id, mark, nft.Verdict(expr.VerdictReturn))
	for _, port := range ports {
		if len(p.conditions(t.is6())) == 0 {
			add(hostPorts, id, t.to(port), nft.DestinationNAT(t.Family, port.Pod))
		}
	}

	for _, r := range p.masquerading(t, pod) {
		add(masquerades, id, r)
	}

	return changes.Flush()
}

// masquerading returns the rules for what the pod could not answer.
func (p Pod) masquerading(t table, pod netip.Addr) [][]expr.Any {
	to := t.Is(t.Destination, pod)
	switch {
	case !p.SNAT:
		return nil
	case p.MasqueradeAll:
		return [][]expr.Any{slices.Concat(to, nft.Masquerade())}
	}

	rules := [][]expr.Any{slices.Concat(t.Is(t.Source, pod), to, nft.Masquerade())}
	if !t.is6() {
		rules = append(rules, slices.Concat(t.Is(t.Source, loopback), to, nft.Masquerade()))
	}
	return rules
}

var loopback = netip.MustParseAddr("127.0.0.1")

// to matches what is sent to a host port.
func (t table) to(p hostnat.Port) []expr.Any {
	match := nft.IsToPort(protocols[p.Protocol], p.HostPort)
	if p.HostIP.IsValid() {
		return slices.Concat(t.Is(t.Destination, p.HostIP), match)
	}
	return match
}

var protocols = map[string]byte{
	"tcp":  unix.IPPROTO_TCP,
	"udp":  unix.IPPROTO_UDP,
	"sctp": unix.IPPROTO_SCTP,
}

// addChains makes the table and its chains, and unless they are there what leads to the host ports.
func (t table) addChains(changes *nftables.Conn, there bool) {
	changes.AddTable(t.nft)
	for _, name := range []string{hostPorts, hostIPPorts, allPorts} {
		changes.AddChain(&nftables.Chain{Table: t.nft, Name: name})
	}

	for _, c := range append(entries(), postrouting()) {
		changes.AddChain(&nftables.Chain{
			Table:    t.nft,
			Name:     c.Name,
			Type:     nftables.ChainTypeNAT,
			Hooknum:  c.Hook,
			Priority: c.Priority,
		})
	}
	if there {
		return
	}

	add := func(c *nftables.Chain, statements ...[]expr.Any) {
		changes.AddRule(&nftables.Rule{Table: t.nft, Chain: c, Exprs: slices.Concat(statements...)})
	}

	all := &nftables.Chain{Table: t.nft, Name: allPorts}
	changes.FlushChain(all)
	add(all, nft.Jump(hostIPPorts))
	add(all, nft.Jump(hostPorts))
	for _, c := range entries() {
		add(&nftables.Chain{Table: t.nft, Name: c.Name}, leadTo(allPorts))
	}
}

// entries are where the kernel has packets translated.
func entries() []nft.Chain {
	return []nft.Chain{
		{
			Name:     prerouting,
			Hook:     nftables.ChainHookPrerouting,
			Priority: nftables.ChainPriorityNATDest,
		},
		{
			Name:     output,
			Hook:     nftables.ChainHookOutput,
			Priority: nftables.ChainPriorityNATDest,
		},
	}
}

// postrouting is where the kernel has packets masqueraded.
func postrouting() nft.Chain {
	return nft.Chain{
		Name:     masquerades,
		Hook:     nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	}
}

// leadTo leads what is sent to this host to a chain.
func leadTo(chain string) []expr.Any { return slices.Concat(nft.IsToThisHost(), nft.Jump(chain)) }

// guards drop what comes in by other interfaces than lo from or to loopback addresses.
func (t table) guards() nft.Chain {
	c := nft.Chain{
		Name:     guard,
		Hook:     nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRaw,
	}
	for _, side := range []uint32{t.Source, t.Destination} {
		c.Rules = append(c.Rules, slices.Concat(
			nft.InterfaceIsNot(expr.MetaKeyIIFNAME, "lo"),
			t.IsWithin(side, netip.PrefixFrom(loopback, 8)),
			nft.Verdict(expr.VerdictDrop),
		))
	}
	return c
}

// addGuard writes the guards in place of what is there: another ADD may do so at the same time.
func (t table) addGuard(changes *nftables.Conn) {
	want := t.guards()
	c := changes.AddChain(&nftables.Chain{
		Table:    t.nft,
		Name:     want.Name,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  want.Hook,
		Priority: want.Priority,
	})
	changes.FlushChain(c)
	for _, r := range want.Rules {
		changes.AddRule(&nftables.Rule{Table: t.nft, Chain: c, Exprs: r})
	}
}

// writeConditional has nft(8) add the rules of ports whose conditions are in its language.
func (p Pod) writeConditional(t table, ports []hostnat.Port) error {
	conditions := p.conditions(t.is6())
	if len(conditions) == 0 {
		return nil
	}

	ip := "ip"
	if t.is6() {
		ip = "ip6"
	}

	// One file is one transaction.
	c := exec.Command("nft", "-f", "-")
	c.Stdin = strings.NewReader(p.script(ip, conditions, ports))
	var failure bytes.Buffer
	c.Stderr = &failure
	if err := c.Run(); err != nil {
		return fmt.Errorf("conditions %q: nft: %w: %s", conditions, err, strings.TrimSpace(failure.String()))
	}

	return nil
}

// script has a line for each port, in the language of nft(8). A zone, which may be any text, is not written.
func (p Pod) script(ip string, conditions []string, ports []hostnat.Port) string {
	var script strings.Builder
	for _, port := range ports {
		fmt.Fprintf(&script, "add rule %s %s %s %s ", ip, tableName, hostPorts, strings.Join(conditions, " "))
		if port.HostIP.IsValid() {
			fmt.Fprintf(&script, "%s daddr %s ", ip, port.HostIP.WithZone(""))
		}
		fmt.Fprintf(&script, "%s dport %d dnat to %s comment %q\n",
			port.Protocol, port.HostPort, port.Pod, nft.Cut(p.Owner.ContainerID))
	}
	return script.String()
}

// markOf returns the name of an interface that cannot be, by which GC finds the containers of a network: a
// rule that compares with it has the container's comment, so that upstream's DEL removes it with the
// others.
func markOf(network string) string { return "cni:" + hashOf(network, 11) }

// containerRules returns the rules of all containers.
func (t table) containerRules() ([]nft.Rule, error) {
	return t.reader.Rules(hostPorts, hostIPPorts, masquerades)
}

// rulesOf returns the rules of a container.
func (t table) rulesOf(container string) (own []nft.Rule, err error) {
	all, err := t.containerRules()
	for _, r := range all {
		if r.Comment == nft.Cut(container) {
			own = append(own, r)
		}
	}
	return own, err
}
