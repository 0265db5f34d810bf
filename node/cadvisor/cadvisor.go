// Package cadvisor writes what kubelet serves at /metrics/cadvisor: the names, labels and units of cAdvisor
// as kubelet 1.37 shows them with containerd, for the whole machine, the groups above those of pods, the
// pods, their sandboxes and their containers. It measures nothing (node/usage and node/machine do).
//
// Labels are on all series, and empty where they say nothing. A container has all of them. A pod's own group
// has pod and namespace, and neither container nor image, so that sums with image!="" count nothing twice. A
// sandbox has no container, but the image of the pause container, which a runtime may do without: the traffic
// of the pod's network is the sandbox's.
//
// https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
package cadvisor

import (
	"maps"
	"path"
	"slices"
	"time"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/usage"
)

// sandboxImage is what series of sandboxes name: the runtime does not say which image it has used, if any.
const sandboxImage = "registry.k8s.io/pause:3.10.2"

// Node is what is known of the machine itself.
type Node struct {
	KernelVersion, OSImage        string
	MachineID, SystemUUID, BootID string
	Topology                      machine.Topology
	DIMMs                         []machine.DIMMs
	MemoryBytes, SwapBytes        uint64
	Disks                         []machine.Disk
	// Failed reports whether the machine could not be read.
	Failed bool
}

// Write writes the page of a snapshot of everything.
func Write(w *exposition.Writer, s *usage.Snapshot, n *Node) {
	writeMachine(w, n)
	writeVersion(w, n)
	all := rowsOf(s, n)
	for _, set := range [][]metric{
		generalMetrics,
		cpuMetrics,
		memoryMetrics,
		diskMetrics,
		networkMetrics,
		processMetrics,
		pressureMetrics,
		specMetrics,
	} {
		writeAll(w, set, all)
	}

	failed := s.Err != nil || s.Node == nil
	w.Family("container_scrape_error", exposition.Gauge,
		"1 if there was an error while getting container metrics, 0 otherwise")
	w.Uint(boolean(failed), time.Time{})
}

// metric is a family; write writes the samples of one row.
type metric struct {
	name, kind, help string
	write            func(w *exposition.Writer, r *row)
	// bare is whether a sandbox without a group has it.
	bare bool
}

func writeAll(w *exposition.Writer, metrics []metric, rows []row) {
	for _, m := range metrics {
		w.Family(m.name, m.kind, m.help)
		for i := range rows {
			if !rows[i].bare || m.bare {
				m.write(w, &rows[i])
			}
		}
	}
}

// row is a group as series show it.
type row struct {
	labels exposition.Labels
	*usage.Group
	// snapshot is where the group is from.
	snapshot *usage.Snapshot
	// created is zero if it is not known.
	created time.Time
	// interfaces and disks are shown with this row.
	interfaces []usage.Interface
	disks      []disk
	// bare is set for a sandbox without a group: it has interfaces, and nothing else.
	bare bool
}

// disk is a file system with its label.
type disk struct {
	label exposition.Labels
	*machine.Disk
}

// labels renders the labels that all series have, in alphabetical order as Prometheus' own clients do.
func labels(container, id, image, name, namespace, pod string) exposition.Labels {
	return exposition.Pairs(
		"container", container,
		"id", id,
		"image", image,
		"name", name,
		"namespace", namespace,
		"pod", pod,
	)
}

// rowsOf returns a row for each group, and for each sandbox without one, which has a network only.
func rowsOf(s *usage.Snapshot, n *Node) []row {
	out := make([]row, 0, 8+4*len(s.Pods))
	add := func(r row) {
		if r.Group != nil {
			r.snapshot = s
			out = append(out, r)
		}
	}

	plain := func(g *usage.Group) row {
		if g == nil {
			return row{}
		}

		return row{labels: labels("", g.Path, "", "", "", ""), Group: g, created: s.Boot}
	}

	root := plain(s.Node)
	root.interfaces = s.Interfaces
	for i := range n.Disks {
		d := &n.Disks[i]
		root.disks = append(root.disks, disk{exposition.Pairs("device", d.Device), d})
	}

	add(root)
	for _, g := range s.Tiers {
		add(plain(g))
	}

	// Daemons may share a group.
	shown := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(s.Daemons)) {
		if g := s.Daemons[name]; !shown[g.Path] {
			shown[g.Path] = true
			add(plain(g))
		}
	}

	for i := range s.Pods {
		for _, r := range rowsOfPod(&s.Pods[i], s.Time) {
			add(r)
		}
	}

	return out
}

// rowsOfPod returns the rows of a pod, its sandbox and its containers.
func rowsOfPod(p *usage.Pod, now time.Time) []row {
	if p.Group == nil {
		return nil
	}

	id := p.Group.Path
	out := []row{{
		labels:  labels("", id, "", "", p.Namespace, p.Name),
		Group:   p.Group,
		created: p.Created,
	}}

	sandbox := row{Group: p.Sandbox, created: p.Created, interfaces: p.Interfaces}
	if sandbox.Group == nil {
		sandbox.Group = &usage.Group{Path: path.Join(id, p.SandboxID)}
		sandbox.Time = now
		sandbox.bare = true
	}

	sandbox.labels = labels("", sandbox.Path, sandboxImage, p.SandboxID, p.Namespace, p.Name)
	out = append(out, sandbox)

	for _, c := range p.Containers {
		if c.Group == nil {
			continue
		}

		out = append(out, row{
			labels:  labels(c.Name, c.Group.Path, c.Image, c.ID, p.Namespace, p.Name),
			Group:   c.Group,
			created: c.Created,
		})
	}

	return out
}

// counts reports whether a group counts the operations on a device itself.
func (r *row) counts(device string) bool {
	for i := range r.IO {
		if r.snapshot.Device(r.IO[i].Major, r.IO[i].Minor) == device {
			return true
		}
	}
	return false
}

// device is the label of a device.
func (r *row) device(d *counters.Device) exposition.Labels {
	return labelOf("device", r.snapshot.Device(d.Major, d.Minor))
}

// labelOf renders one label.
func labelOf(name, value string) exposition.Labels { return exposition.Pairs(name, value) }

func boolean(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
