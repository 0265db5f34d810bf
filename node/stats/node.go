package stats

import (
	"context"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/usage"
)

// node returns the CPU and memory of the whole machine and of the node's daemons.
func (c *Collector) node(s *usage.Snapshot) statsapi.NodeStats {
	out := statsapi.NodeStats{
		NodeName:  c.cfg.NodeName,
		StartTime: metav1.NewTime(s.Boot),
		CPU:       cpuOf(s.Node),
		Memory:    memoryOf(s.Node),
		Swap:      swapOf(s.Node),
	}

	// Memory that is set aside for huge pages is not available for anything else.
	if available := out.Memory.AvailableBytes; available != nil {
		huge := c.cfg.Machine.HugePageBytes()
		out.Memory.AvailableBytes = new(*available - min(*available, huge))
	}

	for _, name := range slices.Sorted(maps.Keys(s.Daemons)) {
		out.SystemContainers = append(out.SystemContainers, systemContainer(name, s.Daemons[name], s))
	}

	if len(s.Tiers) > 0 {
		pods := systemContainer(statsapi.SystemContainerPods, s.Tiers[0], s)
		out.SystemContainers = append(out.SystemContainers, pods)
	}

	return out
}

func systemContainer(name string, g *usage.Group, s *usage.Snapshot) statsapi.ContainerStats {
	return statsapi.ContainerStats{
		Name:      name,
		StartTime: metav1.NewTime(s.Boot),
		CPU:       cpuOf(g),
		Memory:    memoryOf(g),
		Swap:      swapOf(g),
		IO:        ioOf(g),
	}
}

// addToNode adds what is neither CPU nor memory.
func (c *Collector) addToNode(out *statsapi.NodeStats, s *usage.Snapshot, d disks) {
	out.IO = ioOf(s.Node)
	out.Network = networkOf(s.Interfaces, s.Node.Time)
	out.Fs = d.node

	// Writable layers are on the file system of images.
	out.Runtime = &statsapi.RuntimeStats{ImageFs: d.images, ContainerFs: d.images}

	if tasks, limit, err := c.cfg.Machine.Tasks(); err == nil {
		out.Rlimit = &statsapi.RlimitStats{
			Time:                  metav1.Now(),
			MaxPID:                new(limit),
			NumOfRunningProcesses: new(tasks),
		}
	}
}

// imageFS returns the figures of the file system of images, as far as they are known.
func (c *Collector) imageFS(ctx context.Context) *statsapi.FsStats {
	dir, used, err := c.cfg.Runtime.ImageFS(ctx)
	if err != nil {
		return nil
	}
	fs := diskUsage(dir)
	if fs == nil {
		return used
	}
	fs.UsedBytes, fs.InodesUsed = used.UsedBytes, used.InodesUsed
	return fs
}
