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
			t.Error("a table that does not exist passes the check")
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

		table.changes.FlushTable(table.want.table)
		if err := table.changes.Flush(); err != nil {
			return err
		}
		if err := table.Check(); err == nil || !strings.Contains(err.Error(), "does not have the rules") {
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
