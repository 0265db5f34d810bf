package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
)

// Node of the cluster.
type Node struct {
	Name string
	seat.Seats
}

// Plan is what a cluster is made of; it is kept in cluster.json.
type Plan struct {
	Port  int // on 127.0.0.1 of the host, for kubectl
	Nodes []Node
}

// check returns an error when a cluster with these nodes cannot be the one of the plan.
func (p Plan) check(nodes []Node) error {
	if !slices.Equal(p.Nodes, nodes) {
		return errors.New("a cluster with other nodes is up; take it down first (make down)")
	}
	return nil
}

func (p Plan) index(name string) (int, error) {
	i := slices.IndexFunc(p.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return i, fmt.Errorf("the cluster has no node %q", name)
	}
	return i, nil
}

// FirstWith is the index of the first node with this agent, -1 when there is none.
func (p Plan) FirstWith(agent string) int {
	return slices.IndexFunc(p.Nodes, func(n Node) bool { return n.Agent == agent })
}

func (p Plan) names() []string {
	names := make([]string, len(p.Nodes))
	for i, n := range p.Nodes {
		names[i] = n.Name
	}
	return names
}

// onEach calls f for all nodes at the same time and joins the errors.
func (p Plan) onEach(f func(i int, n Node) error) error {
	var group sync.WaitGroup
	errs := make([]error, len(p.Nodes))
	for i, n := range p.Nodes {
		group.Go(func() {
			if err := f(i, n); err != nil {
				errs[i] = fmt.Errorf("node %s: %w", n.Name, err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// Nodes are count nodes with the seats, of which the last systemd ones have systemd as PID 1, and reference
// nodes with the reference in every seat.
func Nodes(seats seat.Seats, count, systemd, reference int) ([]Node, error) {
	if count < 0 || reference < 0 || count+reference < 1 || count+reference > 200 {
		return nil, fmt.Errorf("%d nodes and %d reference nodes: there can be 1 to 200 of both together",
			count, reference)
	}

	if systemd < 0 || systemd > count {
		return nil, fmt.Errorf("%d of %d nodes cannot have systemd", systemd, count)
	}

	var nodes []Node
	for i := range count {
		if i >= count-systemd {
			seats.Init = machine.Systemd
		}

		nodes = append(nodes, Node{Name: fmt.Sprintf("node%d", i+1), Seats: seats})
	}

	for i := range reference {
		theirs := seat.Reference
		theirs.Traces = seats.Traces
		nodes = append(nodes, Node{Name: fmt.Sprintf("ref%d", i+1), Seats: theirs})
	}

	return nodes, nil
}
