package hostnat

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// tablePrefix begins the names of the tables of networks.
const tablePrefix = "cni_"

// TakenElsewhere returns an error that names the first of some ports that a pod of another network has, and
// its owner. The kernel would call the table that was there first, so that the new pod got nothing.
// What the container of owner has in another network is its own.
func (t *Table) TakenElsewhere(owner string, ports []Port) error {
	return takenBut(t.want.table.Name, owner, t.kernel.Conn, ports)
}

// Taken is TakenElsewhere for somebody who has no network's table.
func Taken(owner string, ports []Port) error {
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	return errors.Join(takenBut("", owner, conn, ports), conn.Close())
}

// takenBut looks into the tables of all networks but one. Elements are looked up by their keys, which takes
// the same with a thousand ports: the port of one address meets that of the same address and of all of them.
func takenBut(own, owner string, conn *netlink.Conn, ports []Port) error {
	names, err := nft.Reader{Conn: conn, NFProto: unix.NFPROTO_INET}.Tables()
	if err != nil {
		return err
	}

	for _, name := range names {
		if name == own || !strings.HasPrefix(name, tablePrefix) {
			continue
		}

		other := Table{
			want:   newTable(name),
			kernel: nft.Reader{Conn: conn, NFProto: unix.NFPROTO_INET, Table: name},
		}
		if err := takenIn(&other, owner, ports); err != nil {
			return err
		}
	}

	return nil
}

// newTable describes a table by its name, without rules.
func newTable(name string) ruleset {
	table := &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
	return ruleset{table: table, families: [2]*family{newFamily4(table), newFamily6(table)}}
}

func takenIn(t *Table, owner string, ports []Port) error {
	wanted := slices.Clone(ports)
	for _, p := range ports {
		if p.HostIP.IsValid() {
			p.HostIP = netip.Addr{}
			wanted = append(wanted, p)
		}
	}

	published, err := t.published(wanted)
	if err != nil {
		return err
	}

	for _, p := range wanted {
		f := t.want.familyOf(p.Pod.Addr())
		have, taken := published[f.mapOf(p)][string(f.portElement(p).Key)]
		if taken && containerOf(have.Comment) != containerOf(owner) {
			return fmt.Errorf("%s is taken by %s of the network with nftables table %s",
				p, have.Comment, t.want.table.Name)
		}
	}

	return nil
}

// containerOf returns the container of an owner's label, CONTAINER/IFNAME; of one that was cut, the label.
func containerOf(label string) string {
	if i := strings.LastIndexByte(label, '/'); i >= 0 {
		return label[:i]
	}
	return label
}
