package iptables

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
)

// MayHave reports whether a table of a family may have a chain, "" for any, without running a program: in
// nftables, where iptables-nft keeps it, it is looked up; of the older iptables only the tables can be. DEL
// asks so whether there can be rules that it has to remove.
func MayHave(family Family, table, chain string) (bool, error) {
	// The kernel lists the tables of the older iptables by network namespace.
	old := "/proc/thread-self/net/ip_tables_names"
	nfproto := byte(unix.NFPROTO_IPV4)
	if family == IPv6 {
		old = "/proc/thread-self/net/ip6_tables_names"
		nfproto = unix.NFPROTO_IPV6
	}

	names, err := os.ReadFile(old)
	if err == nil && strings.Contains("\n"+string(names), "\n"+table+"\n") {
		return true, nil
	}

	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()

	r := nft.Reader{
		Conn:    conn,
		NFProto: nfproto,
		Table:   table,
	}
	if chain == "" {
		return r.HasTable()
	}

	rules, err := r.CountOf(chain)
	return rules >= 0, err
}

// EditWhereThere is Edit for the families whose table may have a chain, "" for any.
func EditWhereThere(table, chain string, change func(*Table) error) error {
	for _, family := range Families {
		there, err := MayHave(family, table, chain)
		if err != nil {
			return err
		}
		if !there {
			continue
		}

		err = Edit(family, table, change)

		// Tables of a program that is not installed are not those of a plugin that runs it.
		if err != nil && !errors.Is(err, ErrAbsent) {
			return err
		}
	}

	return nil
}
