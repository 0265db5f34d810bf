// Package hostnat keeps the nftables table of one network: masquerading of what pods send out, and host ports. What is per pod are
// elements of maps and sets, never rules, so a packet costs the same with one pod and with a thousand, and adding a pod does too.
//
//	table inet cni_NETWORK
//	  map ports4      { protocol . host port : pod address . port }
//	  map addrports4  { host address . protocol . host port : pod address . port }
//	  set hairpin4    { pod address . the same }: a pod that reaches itself by its host port
//	  set nomasq4     { destinations that see the pod's own address }
//	  (and the same for IPv6), chains for prerouting, output, postrouting
//
// An element's comment names its owner, CONTAINER/IFNAME, so that GC needs no other record.
package hostnat

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Config is what the rules of a network's table depend on.
type Config struct {
	Network    string
	Bridge     string
	Subnets    []netip.Prefix // of the pods
	Masquerade bool
	NoMasq     []netip.Prefix // destinations, beside Subnets, which see the pod's address
	SNAT       bool           // masquerade what reaches a host port through loopback or from the same bridge
	HostRouted bool           // traffic between pods passes the host anyway, so replies need no masquerading to come back by it
	Ports      bool           // host ports are used
}

// Port is a host port of a pod.
type Port struct {
	HostIP   netip.Addr // zero: every address of the node
	HostPort uint16
	Protocol string // "tcp", "udp", "sctp"
	Pod      netip.AddrPort
}

func (p Port) String() string {
	host := "*"
	if p.HostIP.IsValid() {
		host = p.HostIP.String()
	}
	return fmt.Sprintf("host port %s:%d/%s", host, p.HostPort, p.Protocol)
}

var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// Table is the table of one network in the network namespace of the thread that opened it.
type Table struct {
	conn   *nftables.Conn
	table  *nftables.Table
	config Config
	byFam  map[bool]*family // by "is IPv4"
}

// Open prepares a table; nothing is changed yet.
func Open(config Config) (*Table, error) {
	conn, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	table := &nftables.Table{Name: tableName(config.Network), Family: nftables.TableFamilyINet}
	t := &Table{conn: conn, table: table, config: config}
	t.byFam = map[bool]*family{true: newFamily(table, v4), false: newFamily(table, v6)}
	return t, nil
}

// Close frees the socket.
func (t *Table) Close() error { return t.conn.CloseLasting() }

// tableName is the network's name as nft(8) can write it. Names which had to be changed are told apart by a hash.
func tableName(network string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, network)
	if clean == network {
		return "cni_" + network
	}
	sum := sha256.Sum256([]byte(network))
	return "cni_" + clean + "_" + hex.EncodeToString(sum[:4])
}

// marker is an empty chain whose name tells which configuration the rules were made from: asking for it is one cheap message.
func (t *Table) marker() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "1 %+v", t.config))
	return "config_" + hex.EncodeToString(sum[:6])
}

// Ensure makes the table's rules fit the configuration. Elements stay. It is one message when nothing is to be done.
func (t *Table) Ensure() error {
	if _, err := t.conn.ListChain(t.table, t.marker()); err == nil {
		return nil
	}
	old, err := t.chains()
	if err != nil {
		return err
	}
	t.conn.AddTable(t.table)
	for _, c := range old {
		t.conn.FlushChain(c)
	}
	for _, c := range old {
		if strings.HasPrefix(c.Name, "config_") {
			t.conn.DelChain(c)
		}
	}
	if err := t.build(); err != nil {
		return err
	}
	t.conn.AddChain(&nftables.Chain{Table: t.table, Name: t.marker()})
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", t.table.Name, err)
	}
	return nil
}

func (t *Table) chains() ([]*nftables.Chain, error) {
	all, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	var mine []*nftables.Chain
	for _, c := range all {
		if c.Table.Name == t.table.Name {
			mine = append(mine, c)
		}
	}
	return mine, nil
}

// there tells whether the table exists.
func (t *Table) there() (bool, error) {
	all, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	for _, table := range all {
		if table.Name == t.table.Name {
			return true, nil
		}
	}
	return false, nil
}

// Usable tells whether nftables can be spoken to at all.
func (t *Table) Usable() error {
	_, err := t.there()
	return err
}

// AddPorts publishes host ports of owner. All or none.
func (t *Table) AddPorts(owner string, ports []Port) error {
	for _, p := range ports {
		f := t.byFam[p.Pod.Addr().Is4()]
		m, element := f.ports, f.portElement(p)
		if p.HostIP.IsValid() {
			m = f.addrPorts
		}
		element.Comment = owner
		if err := t.conn.SetAddElements(m, []nftables.SetElement{element}); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		hairpin := nftables.SetElement{Key: f.pair(p.Pod.Addr()), Comment: owner}
		if err := t.conn.SetAddElements(f.hairpin, []nftables.SetElement{hairpin}); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	err := t.conn.Flush()
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EBUSY) {
		return t.taken(ports, err)
	}
	if err != nil {
		return fmt.Errorf("publish host ports of %s: %w", owner, err)
	}
	return flushUDP(ports)
}

// taken names who has the port that was refused.
func (t *Table) taken(ports []Port, refused error) error {
	for _, p := range ports {
		f := t.byFam[p.Pod.Addr().Is4()]
		m := f.ports
		if p.HostIP.IsValid() {
			m = f.addrPorts
		}
		want := f.portElement(p)
		elements, err := t.conn.GetSetElements(m)
		if err != nil {
			return errors.Join(refused, err)
		}
		for _, e := range elements {
			if string(e.Key) == string(want.Key) && string(e.Val) != string(want.Val) {
				return fmt.Errorf("%s is taken by %s", p, e.Comment)
			}
		}
	}
	return fmt.Errorf("publish host ports: %w", refused)
}

// HasPorts tells which of the ports are not published as wanted.
func (t *Table) HasPorts(ports []Port) error {
	for _, p := range ports {
		f := t.byFam[p.Pod.Addr().Is4()]
		m := f.ports
		if p.HostIP.IsValid() {
			m = f.addrPorts
		}
		want, found := f.portElement(p), false
		elements, err := t.conn.GetSetElements(m)
		if err != nil {
			return fmt.Errorf("list nftables map %s: %w", m.Name, err)
		}
		for _, e := range elements {
			found = found || string(e.Key) == string(want.Key) && string(e.Val) == string(want.Val)
		}
		if !found {
			return fmt.Errorf("%s to %s is not in nftables map %s", p, p.Pod, m.Name)
		}
	}
	return nil
}

// Remove takes away every element of owner and every one that points to its addresses. A table that is not there is success.
func (t *Table) Remove(owner string, addresses []netip.Addr) error {
	unwanted := func(element string, target netip.Addr) bool {
		if element == owner {
			return true
		}
		for _, a := range addresses {
			if a == target {
				return true
			}
		}
		return false
	}
	there, err := t.there()
	if err != nil || !there {
		return err
	}
	// Whoever has ports is in a hairpin set too: one look for the many pods that have none.
	for _, f := range t.byFam {
		elements, err := t.conn.GetSetElements(f.hairpin)
		if err != nil {
			return fmt.Errorf("list nftables set %s: %w", f.hairpin.Name, err)
		}
		for _, e := range elements {
			if unwanted(e.Comment, f.target(f.hairpin, e)) {
				return t.removeIf(unwanted)
			}
		}
	}
	return nil
}

// Keep takes away every element whose owner is not valid: CNI's GC.
func (t *Table) Keep(valid func(owner string) bool) error {
	there, err := t.there()
	if err != nil || !there {
		return err
	}
	return t.removeIf(func(owner string, _ netip.Addr) bool { return !valid(owner) })
}

// removeIf deletes elements in one transaction: each that deletes costs the kernel the same 12 ms, however many it holds.
func (t *Table) removeIf(unwanted func(owner string, target netip.Addr) bool) error {
	removed := false
	var udp []Port
	for _, f := range t.byFam {
		for _, s := range f.perPod() {
			elements, err := t.conn.GetSetElements(s)
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			if err != nil {
				return fmt.Errorf("list nftables set %s: %w", s.Name, err)
			}
			var gone []nftables.SetElement
			for _, e := range elements {
				if unwanted(e.Comment, f.target(s, e)) {
					gone = append(gone, nftables.SetElement{Key: e.Key, Val: e.Val})
					udp = append(udp, f.udpPort(s, e)...)
				}
			}
			if len(gone) == 0 {
				continue
			}
			removed = true
			if err := t.conn.SetDeleteElements(s, gone); err != nil {
				return fmt.Errorf("delete from nftables set %s: %w", s.Name, err)
			}
		}
	}
	if !removed {
		return nil
	}
	// Another DEL of the same pod may have been quicker: then the elements are gone, which is what was wanted.
	if err := t.conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables elements: %w", err)
	}
	return flushUDP(udp)
}
