package runtime

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// PodStats are the runtime's figures of one sandbox, in the types of kubelet's statistics API. What the
// runtime does not give is nil.
type PodStats struct {
	Pod        Pod
	Attempt    uint32
	CPU        *statsapi.CPUStats
	Memory     *statsapi.MemoryStats
	Network    *statsapi.NetworkStats
	Processes  *uint64
	Containers []ContainerStats
}

// ContainerStats are the runtime's figures of one container.
type ContainerStats struct {
	ID     string
	Name   string
	CPU    *statsapi.CPUStats
	Memory *statsapi.MemoryStats
	Rootfs *statsapi.FsStats // its writable layer
}

// Stats returns the figures of all sandboxes, those included that have been replaced.
func (c *Client) Stats(ctx context.Context) ([]PodStats, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()

	r, err := c.runtime.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, plain(err)
	}

	out := make([]PodStats, 0, len(r.Stats))
	for _, s := range r.Stats {
		m := s.GetAttributes().GetMetadata()
		pod := PodStats{
			Pod:     Pod{UID: m.GetUid(), Namespace: m.GetNamespace(), Name: m.GetName()},
			Attempt: m.GetAttempt(),
			CPU:     cpuStats(s.Linux.GetCpu()),
			Memory:  memoryStats(s.Linux.GetMemory()),
			Network: networkStats(s.Linux.GetNetwork()),
		}

		pod.Processes = number(s.Linux.GetProcess().GetProcessCount())
		for _, one := range s.Linux.GetContainers() {
			pod.Containers = append(pod.Containers, containerStats(one))
		}

		out = append(out, pod)
	}

	return out, nil
}

func containerStats(s *cri.ContainerStats) ContainerStats {
	return ContainerStats{
		ID:     s.GetAttributes().GetId(),
		Name:   s.GetAttributes().GetMetadata().GetName(),
		CPU:    cpuStats(s.Cpu),
		Memory: memoryStats(s.Memory),
		Rootfs: layerStats(s.WritableLayer),
	}
}

func cpuStats(u *cri.CpuUsage) *statsapi.CPUStats {
	if u == nil {
		return nil
	}
	return &statsapi.CPUStats{
		Time:                 metaTime(u.Timestamp),
		UsageCoreNanoSeconds: number(u.UsageCoreNanoSeconds),
		UsageNanoCores:       number(u.UsageNanoCores),
	}
}

func memoryStats(m *cri.MemoryUsage) *statsapi.MemoryStats {
	if m == nil {
		return nil
	}

	return &statsapi.MemoryStats{
		Time:            metaTime(m.Timestamp),
		AvailableBytes:  number(m.AvailableBytes),
		UsageBytes:      number(m.UsageBytes),
		WorkingSetBytes: number(m.WorkingSetBytes),
		RSSBytes:        number(m.RssBytes),
		PageFaults:      number(m.PageFaults),
		MajorPageFaults: number(m.MajorPageFaults),
	}
}

// networkStats lists the default interface once more among all of them, as kubelet does.
func networkStats(n *cri.NetworkUsage) *statsapi.NetworkStats {
	if n == nil || n.DefaultInterface == nil {
		return nil
	}

	out := &statsapi.NetworkStats{
		Time:           metaTime(n.Timestamp),
		InterfaceStats: interfaceStats(n.DefaultInterface),
	}

	out.Interfaces = append(out.Interfaces, out.InterfaceStats)
	for _, i := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, interfaceStats(i))
	}

	return out
}

func interfaceStats(i *cri.NetworkInterfaceUsage) statsapi.InterfaceStats {
	return statsapi.InterfaceStats{
		Name:     i.Name,
		RxBytes:  number(i.RxBytes),
		RxErrors: number(i.RxErrors),
		TxBytes:  number(i.TxBytes),
		TxErrors: number(i.TxErrors),
	}
}

func layerStats(l *cri.FilesystemUsage) *statsapi.FsStats {
	if l == nil {
		return nil
	}
	return &statsapi.FsStats{
		Time:       metaTime(l.Timestamp),
		UsedBytes:  number(l.UsedBytes),
		InodesUsed: number(l.InodesUsed),
	}
}

func metaTime(nanoseconds int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanoseconds)) }

func number(v *cri.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return new(v.Value)
}
