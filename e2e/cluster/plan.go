package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
)

// Node of the cluster.
type Node struct {
	Name string
	seat.Seats
	Size

	// Attached is what the network is called that pods were attached to before another CNI plugin took its
	// seat; the zero value: as the plugin in the seat calls it.
	Attached seat.Network `json:",omitzero"`
}

// network is what the network of the node's pods is called.
func (n Node) network() seat.Network { return cmp.Or(n.Attached, n.Network()) }

// Size is what a node has of its own, in bytes; 0: it has the host's.
type Size struct {
	// Disk is the file system that a node agent calls nodefs, with Inodes inodes (0: as ext4 has it).
	Disk   int64 `json:",omitempty"`
	Inodes int64 `json:",omitempty"`

	// ImageDisk is a second one for images and containers (imagefs); 0: they are on Disk.
	ImageDisk int64 `json:",omitempty"`

	// Memory is what all processes of the node may have together.
	Memory int64 `json:",omitempty"`

	// Volumes is how much its volume driver promises to all volumes together, in a sparse file; 0: 5 GiB.
	Volumes int64 `json:",omitempty"`
}

// minDisk is enough for the images of the demo.
const minDisk = 64 << 20

func (s Size) check() error {
	switch {
	case s.Disk < 0 || s.ImageDisk < 0 || s.Inodes < 0 || s.Memory < 0 || s.Volumes < 0:
		return errors.New("no size of a node can be negative")
	case s.Disk == 0 && (s.ImageDisk > 0 || s.Inodes > 0):
		return errors.New("a node without a disk has neither a second one nor a number of inodes")
	case s.Disk > 0 && s.Disk < minDisk, s.ImageDisk > 0 && s.ImageDisk < minDisk:
		return fmt.Errorf("a disk of a node has %d bytes at least", minDisk)
	}
	return nil
}

// disks are the machine's. What a volume driver keeps stays on the host's: it is larger than they are.
func (s Size) disks() []machine.Disk {
	if s.Disk == 0 {
		return nil
	}

	node := machine.Disk{
		Name:   "node",
		Size:   s.Disk,
		Inodes: s.Inodes,
		Dirs:   []string{"/var/lib/kubelet", "/var/log/pods"},
	}

	images := []string{"/var/lib/trivet/cri", "/var/lib/containerd"}
	if s.ImageDisk == 0 {
		node.Dirs = append(node.Dirs, images...)
		return []machine.Disk{node}
	}

	return []machine.Disk{node, {
		Name:   "images",
		Size:   s.ImageDisk,
		Inodes: s.Inodes,
		Dirs:   images,
	}}
}

// Plan is what a cluster is made of; it is kept in cluster.json.
type Plan struct {
	Port  int // on 127.0.0.1 of the host, for kubectl
	Nodes []Node

	// Stack is which families of addresses the cluster has.
	Stack address.Stack `json:",omitzero"`

	// Zones is in how many zones the nodes are, one after the other; 0: in none.
	Zones int `json:",omitempty"`
}

// check returns an error when a cluster of another plan cannot be the one of this plan.
func (p Plan) check(other Plan) error {
	if !slices.Equal(p.Nodes, other.Nodes) || p.Stack != other.Stack || p.Zones != other.Zones {
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

// has reports whether there is such a node.
func (p Plan) has(such func(Node) bool) bool { return slices.ContainsFunc(p.Nodes, such) }

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
// nodes with the reference in every seat. All have the size.
func Nodes(seats seat.Seats, size Size, count, systemd, reference int) ([]Node, error) {
	if err := size.check(); err != nil {
		return nil, err
	}

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

		nodes = append(nodes, Node{
			Name:  fmt.Sprintf("node%d", i+1),
			Seats: seats,
			Size:  size,
		})
	}

	for i := range reference {
		theirs := seat.Reference
		theirs.Traces = seats.Traces
		nodes = append(nodes, Node{
			Name:  fmt.Sprintf("ref%d", i+1),
			Seats: theirs,
			Size:  size,
		})
	}

	return nodes, nil
}
