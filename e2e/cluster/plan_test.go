package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
)

// seatsOf shows the agent and the init of each node.
func seatsOf(nodes []Node) string {
	var all []string
	for _, n := range nodes {
		all = append(all, fmt.Sprintf("%s %s/%s", n.Name, n.Agent, n.Init))
	}
	return strings.Join(all, ", ")
}

func TestNodesAreNumberedAndTheLastOnesHaveSystemd(t *testing.T) {
	for _, c := range []struct {
		count, systemd, reference int
		want                      string
	}{
		{1, 0, 0, "node1 trivet/trivet"},
		{3, 1, 0, "node1 trivet/trivet, node2 trivet/trivet, node3 trivet/systemd"},
		{1, 1, 2, "node1 trivet/systemd, ref1 kubelet/trivet, ref2 kubelet/trivet"},
		{0, 0, 1, "ref1 kubelet/trivet"},
	} {
		nodes, err := Nodes(seat.Ours, Size{}, c.count, c.systemd, c.reference)
		if got := seatsOf(nodes); err != nil || got != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
}

func TestImpossibleNumbersOfNodesAreRefused(t *testing.T) {
	for _, c := range [][3]int{{0, 0, 0}, {-1, 0, 3}, {1, 2, 0}, {1, -1, 0}, {200, 0, 1}} {
		if nodes, err := Nodes(seat.Ours, Size{}, c[0], c[1], c[2]); err == nil {
			t.Errorf("%v: %s", c, seatsOf(nodes))
		}
	}
}

func TestClusterThatIsUpKeepsItsNodes(t *testing.T) {
	plan := Plan{Nodes: []Node{{Name: "node1", Seats: seat.Ours}}}
	if err := plan.check(Plan{Nodes: []Node{{Name: "node1", Seats: seat.Ours}}}); err != nil {
		t.Error(err)
	}

	for _, others := range [][]Node{
		nil,
		{{Name: "node1", Seats: seat.Reference}},
		{{Name: "node1", Seats: seat.Ours}, {Name: "node2", Seats: seat.Ours}},
	} {
		if err := plan.check(Plan{Nodes: others}); err == nil {
			t.Errorf("%s passes for %s", seatsOf(others), seatsOf(plan.Nodes))
		}
	}

	for _, other := range []Plan{
		{Nodes: plan.Nodes, Stack: address.Stack{Dual: true}},
		{Nodes: plan.Nodes, Zones: 3},
	} {
		if err := plan.check(other); err == nil {
			t.Errorf("%+v passes for %+v", other, plan)
		}
	}
}

func TestPlanIsReadAsItWasWritten(t *testing.T) {
	d := stateDir(t.TempDir())
	nodes, err := Nodes(seat.Ours, Size{}, 2, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.writePlan(Plan{Port: 4711, Nodes: nodes}); err != nil {
		t.Fatal(err)
	}

	got, err := d.plan()
	if err != nil || got.Port != 4711 || got.check(Plan{Nodes: nodes}) != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestErrorsOfNodesAreJoinedWithTheirNames(t *testing.T) {
	plan := Plan{Nodes: []Node{{Name: "a"}, {Name: "b"}, {Name: "c"}}}
	bad := errors.New("bad")
	err := plan.onEach(func(i int, _ Node) error {
		if i == 1 {
			return nil
		}
		return bad
	})
	if !errors.Is(err, bad) || err.Error() != "node a: bad\nnode c: bad" {
		t.Errorf("error %v", err)
	}
}

func TestOnlyNodesWithTheUpstreamPluginsNeedRoutesToOthers(t *testing.T) {
	plan := Plan{Nodes: []Node{
		{Name: "a", Seats: seat.Ours},
		{Name: "b", Seats: seat.Reference},
		{Name: "c", Seats: seat.Reference},
	}}
	for target, want := range map[string]string{"a": "b c", "b": "c", "c": "b"} {
		if got := strings.Join(plan.routeless(target), " "); got != want {
			t.Errorf("to the pods of %s: from %s, want %s", target, got, want)
		}
	}
}

func TestClustersInDifferentDirectoriesHaveDifferentCgroups(t *testing.T) {
	a, b := stateDir("/a/.trivet"), stateDir("/a/.trivet/e2e")
	if a.group("node1") == b.group("node1") {
		t.Errorf("both have %s", a.group("node1"))
	}

	// A cluster that an earlier version has left is found by it.
	if got := a.group("node1"); got != "/trivet-deefd87c/node1" {
		t.Errorf("cgroup %s", got)
	}
}

func TestNetworkKeepsItsNamesWhenAnotherPluginTakesTheSeat(t *testing.T) {
	n := Node{Name: "node1", Seats: seat.Ours}
	if got := n.network(); got != seat.Ours.Network() {
		t.Errorf("a node of ours: %+v", got)
	}

	n.Attached = n.network()
	n.CNI = "upstream"
	d := stateDir(t.TempDir())
	if err := d.writePlan(Plan{Nodes: []Node{n}}); err != nil {
		t.Fatal(err)
	}

	plan, err := d.plan()
	if err != nil || plan.Nodes[0].network() != seat.Ours.Network() {
		t.Errorf("with upstream's plugins in the seat: %+v, %v", plan, err)
	}
}
