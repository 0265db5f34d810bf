package eviction

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/runtime"
)

// usages is what pods use, by UID.
type usages map[types.UID]Usage

// Runtime is where the figures of pods are from (runtime.Client).
type Runtime interface {
	Stats(ctx context.Context) ([]runtime.PodStats, error)
}

// Storage measures what pods have on the node's own disk, by UID.
type Storage interface {
	Usage(ctx context.Context) (map[types.UID]Stored, error)
}

// Stored is what a pod has on disk.
type Stored struct {
	// Layers and Logs are by the name of the container.
	Layers  map[string]Disk
	Logs    map[string]Disk
	Volumes Disk
}

// PodMeter measures pods by what the runtime says and by what they have on disk.
type PodMeter struct {
	Runtime Runtime

	// Storage may be nil: then a pod has what the runtime says.
	Storage Storage
}

// Usage implements Meter.
func (m PodMeter) Usage(ctx context.Context, disk bool) (map[types.UID]Usage, error) {
	stats, err := m.Runtime.Stats(ctx)
	if err != nil {
		return nil, err
	}

	// Sandboxes that have been replaced do not count.
	newest := map[string]runtime.PodStats{}
	for _, s := range stats {
		if old, known := newest[s.Pod.UID]; !known || old.Attempt < s.Attempt {
			newest[s.Pod.UID] = s
		}
	}

	out := map[types.UID]Usage{}
	for uid, s := range newest {
		out[types.UID(uid)] = usageOf(s)
	}

	if !disk || m.Storage == nil {
		return out, nil
	}

	stored, err := m.Storage.Usage(ctx)
	if err != nil {
		return nil, err
	}

	for uid, s := range stored {
		if u, known := out[uid]; known {
			out[uid] = u.with(s)
		}
	}

	return out, nil
}

// usageOf is what the runtime says of a pod.
func usageOf(s runtime.PodStats) Usage {
	out := Usage{Containers: map[string]ContainerUsage{}}
	sum := int64(0)
	for _, c := range s.Containers {
		one := ContainerUsage{Memory: workingSet(c.Memory), Layer: diskOf(c.Rootfs)}
		if one.Memory != nil {
			sum += *one.Memory
		}

		out.Containers[c.Name] = one
	}

	out.Memory = sum
	if whole := workingSet(s.Memory); whole != nil {
		out.Memory = *whole
	}
	if s.Processes != nil {
		out.Processes = int64(*s.Processes)
	}

	return out
}

// with adds what a pod has on disk.
func (u Usage) with(s Stored) Usage {
	for name, c := range u.Containers {
		if layer, known := s.Layers[name]; known {
			c.Layer = &layer
		}
		if logs, known := s.Logs[name]; known {
			c.Logs = &logs
		}

		u.Containers[name] = c
	}

	u.Volumes = s.Volumes
	return u
}

func workingSet(m *statsapi.MemoryStats) *int64 {
	if m == nil || m.WorkingSetBytes == nil {
		return nil
	}
	return new(int64(*m.WorkingSetBytes))
}

func diskOf(fs *statsapi.FsStats) *Disk {
	if fs == nil || fs.UsedBytes == nil {
		return nil
	}

	out := &Disk{Bytes: int64(*fs.UsedBytes)}
	if fs.InodesUsed != nil {
		out.Inodes = int64(*fs.InodesUsed)
	}

	return out
}
