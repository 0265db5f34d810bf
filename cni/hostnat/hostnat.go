// Package hostnat keeps the nftables table of one network: masquerading of what pods send out, and host
// ports. What is per pod are elements of maps and sets, never rules, so a packet costs the same with one pod
// and with a thousand, and adding a pod does too.
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
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Config is what the rules of a network's table depend on.
type Config struct {
	Network    string
	Bridge     string
	Subnets    []netip.Prefix // of the pods, which see each other's addresses
	Masquerade bool
	NoMasq     []netip.Prefix // destinations, beside Subnets, which see the pod's address
	SNAT       bool           // masquerade what reaches a host port through loopback or from the same bridge
	// traffic between pods passes the host anyway, so replies need no masquerading to come back by it
	HostRouted bool
	Ports      bool // host ports are used
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
	kernel *rtnl.Conn     // asks
	conn   *nftables.Conn // changes; it opens a socket for each transaction
	table  *nftables.Table
	config Config
	byFam  map[bool]*family // by "is IPv4"
	rules  map[string]int   // how many build has put into each chain
}

// Open prepares a table; nothing is changed yet.
func Open(config Config) (*Table, error) {
	kernel, err := rtnl.OpenNetfilter()
	if err != nil {
		return nil, err
	}

	conn, err := nftables.New()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare nftables socket: %w", err), kernel.Close())
	}

	table := &nftables.Table{Name: tableName(config.Network), Family: nftables.TableFamilyINet}
	t := &Table{
		kernel: kernel,
		conn:   conn,
		table:  table,
		config: config,
		rules:  map[string]int{},
	}

	t.byFam = map[bool]*family{true: newFamily(table, v4), false: newFamily(table, v6)}
	return t, nil
}

// Close frees the socket.
func (t *Table) Close() error { return t.kernel.Close() }

// maxName keeps the name of a table within the kernel's 255 bytes.
const maxName = 200

// tableName is the network's name as nft(8) can write it. Names which had to be changed are told apart by a
// hash.
func tableName(network string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}

		return '_'
	}, network)

	clean = clean[:min(len(clean), maxName)]
	if clean == network {
		return "cni_" + network
	}

	sum := sha256.Sum256([]byte(network))
	return "cni_" + clean + "_" + hex.EncodeToString(sum[:4])
}

// marker is a chain whose name tells which configuration the rules were made from: asking for it is one cheap
// message. It is never called, and holds one rule, which goes with all the others when somebody flushes the
// table.
func (t *Table) marker() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "3 %+v", t.config))
	return "config_" + hex.EncodeToString(sum[:6])
}

// tries bounds how often a transaction is put together again because another process was quicker.
const tries = 20

// Ensure makes the table's rules fit the configuration. Elements stay. It is one message when nothing is to
// be done. Of several processes that find the same to do one succeeds, and the others look again.
func (t *Table) Ensure() error {
	for range tries {
		if ok, err := t.fits(); ok || err != nil {
			return err
		}
		err := t.replace()
		if err == nil || !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return fmt.Errorf("write nftables table %s: others keep changing it", t.table.Name)
}

// replace writes all rules in one transaction. The kernel refuses it when another process has made the table
// (EEXIST) or replaced the rules that it means to replace (ENOENT).
func (t *Table) replace() error {
	there, err := t.there()
	if err != nil {
		return err
	}

	if !there {
		t.conn.CreateTable(t.table)
	} else if err := t.empty(); err != nil {
		return err
	}

	if err := t.build(); err != nil {
		return err
	}
	if err := t.conn.Flush(); err != nil {
		return fmt.Errorf("write nftables table %s: %w", t.table.Name, err)
	}

	return nil
}

// empty takes the rules and the marker of the configuration before out of the table.
func (t *Table) empty() error {
	all, err := t.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}

	for _, c := range all {
		switch {
		case c.Table.Name != t.table.Name:
		case strings.HasPrefix(c.Name, "config_"):
			t.conn.FlushChain(c)
			t.conn.DelChain(c)
		default:
			t.conn.FlushChain(c)
		}
	}

	return nil
}

// Usable reports whether nftables can be spoken to at all.
func (t *Table) Usable() error {
	_, err := t.there()
	return err
}

// AddPorts publishes host ports of owner. All or none.
func (t *Table) AddPorts(owner string, ports []Port) error {
	for _, p := range ports {
		f := t.byFam[p.Pod.Addr().Is4()]
		m, element := f.mapOf(p), f.portElement(p)
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
		m := f.mapOf(p)
		want := f.portElement(p)
		elements, err := t.elements(m)
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
	// value by key
	published := map[*nftables.Set]map[string]string{}
	for _, p := range ports {
		f := t.byFam[p.Pod.Addr().Is4()]
		m := f.mapOf(p)
		if published[m] == nil {
			elements, err := t.elements(m)
			if err != nil {
				return err
			}

			published[m] = map[string]string{}
			for _, e := range elements {
				published[m][string(e.Key)] = string(e.Val)
			}
		}

		if want := f.portElement(p); published[m][string(want.Key)] != string(want.Val) {
			return fmt.Errorf("%s to %s is not in nftables map %s", p, p.Pod, m.Name)
		}
	}

	return nil
}

// Remove takes away every element of owner and every one that points to its addresses. A table that is not
// there is success.
func (t *Table) Remove(owner string, addresses []netip.Addr) error {
	unwanted := func(element string, target netip.Addr) bool {
		return element == owner || slices.Contains(addresses, target)
	}
	// Whoever has ports is in a hairpin set too: one look for the many pods that have none.
	return t.removeIf(unwanted, func(f *family) []*nftables.Set { return []*nftables.Set{f.hairpin} })
}

// Keep takes away every element whose owner is not valid: CNI's GC.
func (t *Table) Keep(valid func(owner string) bool) error {
	return t.removeIf(func(owner string, _ netip.Addr) bool { return !valid(owner) }, (*family).perPod)
}

// removeIf deletes elements in one transaction: each that deletes costs the kernel the same 12 ms, however
// many it holds. Nothing is done when none of the sets in first holds one.
func (t *Table) removeIf(
	unwanted func(owner string, target netip.Addr) bool,
	first func(*family) []*nftables.Set,
) error {
	there, err := t.there()
	if err != nil || !there {
		return err
	}

	for range tries {
		found, err := t.find(unwanted, first)
		if err != nil || len(found) == 0 {
			return err
		}
		if found, err = t.find(unwanted, (*family).perPod); err != nil {
			return err
		}

		var udp []Port
		for _, part := range found {
			for _, e := range part.elements {
				udp = append(udp, part.family.udpPort(part.set, e)...)
			}

			if err := t.conn.SetDeleteElements(part.set, part.elements); err != nil {
				return fmt.Errorf("delete from nftables set %s: %w", part.set.Name, err)
			}
		}

		err = t.conn.Flush()
		if errors.Is(err, unix.ENOENT) {
			// another DEL or GC took one of them, and the kernel has refused the rest with it
			continue
		}

		if err != nil {
			return fmt.Errorf("delete nftables elements: %w", err)
		}

		return flushUDP(udp)
	}

	return fmt.Errorf("delete nftables elements: others keep changing table %s", t.table.Name)
}

// part are some elements of a set.
type part struct {
	family   *family
	set      *nftables.Set
	elements []nftables.SetElement
}

// find returns the unwanted elements of some sets of each family.
func (t *Table) find(
	unwanted func(owner string, target netip.Addr) bool,
	sets func(*family) []*nftables.Set,
) (found []part, err error) {
	for _, f := range t.byFam {
		for _, s := range sets(f) {
			all, err := t.elements(s)
			if err != nil {
				return nil, err
			}

			p := part{family: f, set: s}
			for _, e := range all {
				if unwanted(e.Comment, f.target(s, e)) {
					p.elements = append(p.elements, nftables.SetElement{Key: e.Key, Val: e.Val})
				}
			}

			if len(p.elements) > 0 {
				found = append(found, p)
			}
		}
	}

	return found, nil
}
