package hostnat

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestRepairWritesRulesAgainAndLeavesElements(t *testing.T) {
	testenv.Root(t)
	config := Config{
		Network:    "test",
		Bridge:     "br0",
		Subnets:    []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		Masquerade: true,
		SNAT:       true,
		Ports:      true,
	}

	port := Port{HostPort: 80, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.1.0.2:80")}
	err := namespace.Do(func() error {
		table, err := Open(config)
		if err != nil {
			return err
		}
		defer func() { _ = table.Close() }()

		if err := table.Check(); err == nil {
			t.Error("a table that is not there is as it has to be")
		}
		if repaired, err := table.Repair(); !repaired || err != nil {
			t.Errorf("repaired %v, %v", repaired, err)
		}
		if err := table.AddPorts("a/eth0", []Port{port}); err != nil {
			return err
		}
		if repaired, err := table.Repair(); repaired || err != nil {
			t.Errorf("a whole table is repaired %v, %v", repaired, err)
		}

		table.conn.FlushTable(table.table)
		if err := table.conn.Flush(); err != nil {
			return err
		}
		if err := table.Check(); err == nil || !strings.Contains(err.Error(), "has not the rules") {
			t.Errorf("a flushed table: %v", err)
		}
		if repaired, err := table.Repair(); !repaired || err != nil {
			t.Errorf("repaired %v, %v", repaired, err)
		}

		return table.HasPorts([]Port{port})
	}, testenv.Netns(t))
	if err != nil {
		t.Error(err)
	}
}

func TestWatchTellsOfDeletionsInTheOwnTableAlone(t *testing.T) {
	// struct nfgenmsg, and an attribute of 8 bytes with the table's name
	body := []byte{1, 0, 0, 0, 8, 0, 1, 0, 'c', 'n', 'i', 0}

	// NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE
	const del, add = 10<<8 | 2, 10<<8 | 0
	if !takesFrom("cni", del, body) || takesFrom("cni", add, body) ||
		takesFrom("other", del, body) || takesFrom("cni", del, body[:3]) {
		t.Error("takesFrom")
	}
}
