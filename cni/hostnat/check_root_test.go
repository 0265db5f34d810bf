package hostnat

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cni/nft/nfttest"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

var whole = Config{
	Network:    "test",
	Bridge:     "br0",
	Subnets:    []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
	Masquerade: true,
	SNAT:       true,
	Ports:      true,
}

func TestRepairWritesRulesAgainAndLeavesElements(t *testing.T) {
	testenv.Root(t)
	port := Port{HostPort: 80, Protocol: "tcp", Pod: netip.MustParseAddrPort("10.1.0.2:80")}
	err := namespace.Do(func() error {
		table, err := Open(whole)
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

// ruleDamages are rules that somebody has changed where they are, and how the check names it.
var ruleDamages = []struct{ chain, from, to, want string }{
	{"postrouting", "!= @nomasq4", "@nomasq4", "rule 5 of chain postrouting"},
	{"postrouting", `oifname != "br0"`, `oifname != "br1"`, "rule 5 of chain postrouting"},
	{"postrouting", "masquerade", "accept", "rule 1 of chain postrouting"},
	{"postrouting", "127.0.0.0/8", "127.0.0.0/9", "rule 3 of chain postrouting"},
	{"prerouting", "type local", "type unicast", "rule 1 of chain prerouting"},
	{"output", "jump hostports", "return", "rule 1 of chain output"},
	{"hostports", "th dport map @ports4", "th sport map @ports4", "rule 2 of chain hostports"},
	{"loopback", "ip daddr", "ip saddr", "rule 1 of chain loopback"},
	{"loopback", "drop", "accept", "rule 1 of chain loopback"},
}

func TestARuleThatWasChangedInPlaceIsFoundAndRepaired(t *testing.T) {
	testenv.Root(t)
	netns := testenv.Netns(t)
	with := func(f func(*Table) error) {
		t.Helper()
		err := namespace.Do(func() error {
			table, err := Open(whole)
			if err != nil {
				return err
			}
			defer func() { _ = table.Close() }()
			return f(table)
		}, netns)
		if err != nil {
			t.Error(err)
		}
	}

	with((*Table).Ensure)
	for _, d := range ruleDamages {
		with((*Table).Check)
		nfttest.Change(t, netns, "inet cni_test "+d.chain, d.from, d.to)
		with(func(table *Table) error {
			if err := table.Check(); err == nil || !strings.Contains(err.Error(), d.want) {
				t.Errorf("%s, %s: %v, want %q", d.chain, d.from, err, d.want)
			}
			_, err := table.Repair()
			return err
		})
	}

	// A chain that the kernel does not call.
	for _, command := range []string{
		"flush chain inet cni_test output",
		"delete chain inet cni_test output",
		"add chain inet cni_test output",
		"add rule inet cni_test output fib daddr type local jump hostports",
	} {
		nfttest.Run(t, netns, command)
	}

	with(func(table *Table) error {
		if err := table.Check(); err == nil || !strings.Contains(err.Error(), "does not call chain output") {
			t.Error(err)
		}
		_, err := table.Repair()
		return err
	})
	with((*Table).Check)
}
