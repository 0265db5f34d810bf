package eviction

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/threshold"
)

// Directories says where the container runtime keeps images, and where the writable layers of containers
// (runtime.Client).
type Directories interface {
	Directories(ctx context.Context) (images, containers string, err error)
}

// Cgroups reads the figures of control groups (cgroup.Host).
type Cgroups interface {
	Usage(group string) (cgroup.Usage, error)
}

// Node measures a node by its files.
type Node struct {
	Machine machine.Machine
	Cgroups Cgroups

	// RootDir is kubelet's directory, PodsGroup the control group of all pods.
	RootDir   string
	PodsGroup string

	Runtime Directories
	Log     *slog.Logger

	// images and containers are the runtime's directories, empty before it has said so, and layout is what
	// follows from them. The goroutine that observes alone uses them.
	images     string
	containers string
	layout     Layout
}

// Observe implements Observer. What cannot be read is left out, and logged at the level of debugging.
func (n *Node) Observe(ctx context.Context) (Observation, Layout) {
	now := &look{seen: Observation{}, log: n.Log}
	n.memory(now)

	tasks, most, err := n.Machine.Tasks()
	now.add(threshold.PIDs, Observed{Left: most - tasks, Capacity: most}, err)

	n.disks(ctx, now)
	return now.seen, n.layout
}

// look is one observation while it is made.
type look struct {
	seen Observation
	log  *slog.Logger
}

// add adds what was measured, unless that has failed.
func (l *look) add(signal string, o Observed, err error) {
	if err != nil {
		l.log.Debug("signal is not measured", "signal", signal, "err", err)
		return
	}

	o.Left = max(o.Left, 0)
	o.Time = time.Now()
	l.seen[signal] = o
}

// memory measures the memory of the node and that of all pods together, which have a limit of their own.
func (n *Node) memory(now *look) {
	// A root group that has no figures, as on cgroup v2, is counted by the machine's.
	m, err := n.Machine.Memory()
	node := Observed{
		Left:     m.Total - m.WorkingSet,
		Capacity: m.Total,
		Group:    "/",
		Cached:   m.InactiveFile,
	}
	if root, err := n.Cgroups.Usage("/"); err == nil {
		node.Left = m.Total - int64(root.WorkingSet)
		node.Cached = int64(root.Memory - root.WorkingSet)
	}

	now.add(threshold.Memory, node, err)

	pods, err := n.Cgroups.Usage(n.PodsGroup)
	if err == nil && pods.MemoryLimit == 0 {
		return
	}

	now.add(threshold.AllocatableMemory, Observed{
		Left:     int64(pods.MemoryLimit) - int64(pods.WorkingSet),
		Capacity: int64(pods.MemoryLimit),
		Group:    n.PodsGroup,
		Cached:   int64(pods.Memory - pods.WorkingSet),
	}, err)
}

// disks measures the file systems.
func (n *Node) disks(ctx context.Context, now *look) {
	node := measure(n.RootDir)
	node.tell(now, threshold.NodeFS, threshold.NodeFSInodes)

	// A runtime that does not answer is asked again at the next look.
	if n.images == "" {
		images, containers, err := n.Runtime.Directories(ctx)
		if err != nil {
			n.Log.Debug("directories of the container runtime", "err", err)
			return
		}

		n.images, n.containers = images, containers
		n.layout = layoutOf(n.RootDir, images, containers)
	}

	images := node
	if n.layout.Images {
		images = measure(n.images)
	}

	images.tell(now, threshold.ImageFS, threshold.ImageFSInodes)

	containers := images
	if n.layout.Split {
		containers = measure(n.containers)
	}

	containers.tell(now, threshold.ContainerFS, threshold.ContainerFSInodes)
}

// measured is what a file system has, or why that is not known.
type measured struct {
	machine.FileSystem
	err error
}

// measure measures the file system of a directory.
func measure(dir string) (m measured) {
	m.FileSystem, m.err = machine.FileSystemOf(dir)
	return m
}

// tell adds a file system by two signals. One that has no number of inodes has enough of them.
func (m measured) tell(now *look, space, inodes string) {
	now.add(space, Observed{Left: m.Free, Capacity: m.Size}, m.err)
	if m.Inodes > 0 || m.err != nil {
		now.add(inodes, Observed{Left: m.InodesFree, Capacity: m.Inodes}, m.err)
	}
}

// layoutOf finds out which directories are on one file system.
func layoutOf(root, images, containers string) Layout {
	return Layout{
		Images: !sameFileSystem(root, images) || !sameFileSystem(images, containers),
		Split:  !sameFileSystem(images, containers),
	}
}

// sameFileSystem reports whether two directories share their space. The subvolumes of one btrfs have devices
// of their own, and the same figures. Directories of which nothing is known count as sharing it.
func sameFileSystem(a, b string) bool {
	var one, other unix.Stat_t
	if unix.Stat(a, &one) != nil || unix.Stat(b, &other) != nil || one.Dev == other.Dev {
		return true
	}

	var here, there unix.Statfs_t
	if unix.Statfs(a, &here) != nil || unix.Statfs(b, &there) != nil {
		return true
	}

	return here.Type == unix.BTRFS_SUPER_MAGIC && there.Type == unix.BTRFS_SUPER_MAGIC &&
		here.Blocks == there.Blocks && here.Bfree == there.Bfree
}
