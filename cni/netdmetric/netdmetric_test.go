package netdmetric

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netd"
	"github.com/trivet-node/trivet/cni/netd/enforcer"
	"github.com/trivet-node/trivet/cni/tally"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/metric/metrictest"
)

func has(t *testing.T, s *Set, lines ...string) {
	t.Helper()
	w := httptest.NewRecorder()
	handler := metric.Handler(s.Registry, slog.Default())
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	got := w.Body.String()
	for _, line := range lines {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
}

func TestPassesAndRepairsAreCounted(t *testing.T) {
	s := New(nil, nil)
	has(t, s,
		`trivet_netd_repairs_total{what="rules"} 0`,
		`trivet_netd_route_changes_total{change="added"} 0`)

	s.Passed(netd.Report{
		At:          time.Unix(1000, 0),
		Took:        time.Millisecond,
		Nodes:       3,
		Routes:      2,
		RoutesAdded: 2,
		Errors:      []string{"the plugin is not ready"},
		Notes:       []string{"a node behind a router"},
	})

	s.Passed(netd.Report{
		At:            time.Unix(1001, 0),
		Nodes:         3,
		Routes:        2,
		ConfigWritten: true,
		RulesRestored: true,
		PortsRestored: true,
	})

	has(t, s,
		`trivet_netd_passes_total{result="error"} 1`,
		`trivet_netd_passes_total{result="ok"} 1`,
		`trivet_netd_pass_duration_seconds_count 2`,
		`trivet_netd_pass_errors 0`,
		`trivet_netd_pass_notes 0`,
		`trivet_netd_nodes 3`,
		`trivet_netd_routes 2`,
		`trivet_netd_route_changes_total{change="added"} 2`,
		`trivet_netd_config_writes_total 1`,
		`trivet_netd_repairs_total{what="rules"} 1`,
		`trivet_netd_repairs_total{what="host_ports"} 1`,
		`trivet_netd_last_pass_timestamp_seconds 1001`)
}

// plugin has counted one call.
type plugin struct{}

func (plugin) Counts() []tally.Count {
	return []tally.Count{{Verb: "ADD", Code: "11", Calls: 3, Took: 6 * time.Millisecond}}
}

// rules have dropped some packets.
type rules struct{}

func (rules) Dropped() ([2]uint64, error) { return [2]uint64{4, 2}, nil }

func TestPassesOverPoliciesAreCounted(t *testing.T) {
	s := New(nil, rules{})
	s.Enforced(enforcer.Report{
		Changed:  true,
		Policies: 3,
		Isolated: 2,
		Problems: []string{"a/b is too large"},
	})
	s.Enforced(enforcer.Report{Err: errors.New("the API server is away")})
	has(t, s,
		`trivet_netd_policy_passes_total{result="ok"} 1`,
		`trivet_netd_policy_passes_total{result="error"} 1`,
		`trivet_netd_policy_updates_total 1`,
		`trivet_netd_policies 3`,
		`trivet_netd_policies_refused 1`,
		`trivet_netd_policy_pods 2`,
		`trivet_netd_policy_dropped_packets_total{direction="ingress"} 4`,
		`trivet_netd_policy_dropped_packets_total{direction="egress"} 2`)
}

func TestCallsOfThePluginAreThoseThatItHasCounted(t *testing.T) {
	has(t, New(plugin{}, rules{}),
		`trivet_cni_calls_total{code="11",command="ADD"} 3`,
		`trivet_cni_call_seconds_total{code="11",command="ADD"} 0.006`)
}

func TestTheDocumentsHaveAllMetrics(t *testing.T) {
	s := New(plugin{}, rules{})
	s.Passed(netd.Report{
		Pool:   ipam.Location{DataDir: t.TempDir(), Network: "trivet"},
		Ranges: []ipam.Set{{podRange(t)}},
	})
	metrictest.Compare(t, "trivet-netd", s.Registry)
}

func podRange(t *testing.T) ipam.Range {
	t.Helper()
	r, err := ipam.NewRange(ipam.Range{Subnet: netip.MustParsePrefix("10.9.0.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestThePoolIsCountedWhenThereIsAScrape(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "trivet"), 0o755); err != nil {
		t.Fatal(err)
	}

	s := New(nil, nil)
	s.Passed(netd.Report{
		Pool:   ipam.Location{DataDir: dir, Network: "trivet"},
		Ranges: []ipam.Set{{podRange(t)}},
	})

	has(t, s,
		`trivet_netd_pool_addresses{subnet="10.9.0.0/24"} 253`,
		`trivet_netd_pool_addresses_taken{subnet="10.9.0.0/24"} 0`)

	if err := os.WriteFile(filepath.Join(dir, "trivet", "10.9.0.7"), []byte("c\r\neth0"), 0o644); err != nil {
		t.Fatal(err)
	}

	has(t, s, `trivet_netd_pool_addresses_taken{subnet="10.9.0.0/24"} 1`)
}
