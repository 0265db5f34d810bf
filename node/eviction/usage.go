package eviction

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/runtime"
)

// usages is what pods use, by UID.
type usages map[types.UID]Usage

// Runtime is where the figures of pods are from (runtime.Client).
type Runtime interface {
	Stats(ctx context.Context) ([]runtime.PodStats, error)
}

// Storage measures what pods have on the node's own disk, by UID (localstorage.Meter).
type Storage interface {
	Usage(ctx context.Context) (map[types.UID]localstorage.Pod, error)
}

// PodMeter measures pods by what the runtime says and by what they have on disk.
type PodMeter struct {
	Runtime Runtime
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

	if !disk {
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
		one := ContainerUsage{Memory: workingSet(c.Memory)}
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
func (u Usage) with(stored localstorage.Pod) Usage {
	for name, c := range u.Containers {
		on, known := stored.Containers[name]
		if !known {
			continue
		}

		c.Layer, c.Logs = new(diskOf(on.Layer)), new(diskOf(on.Logs))
		u.Containers[name] = c
	}

	for _, v := range stored.Volumes {
		if !v.Memory {
			u.Volumes = u.Volumes.plus(diskOf(v.Usage))
		}
	}

	return u
}

func diskOf(u localstorage.Usage) Disk { return Disk{Bytes: int64(u.Bytes), Inodes: int64(u.Inodes)} }

func workingSet(m *statsapi.MemoryStats) *int64 {
	if m == nil || m.WorkingSetBytes == nil {
		return nil
	}
	return new(int64(*m.WorkingSetBytes))
}
