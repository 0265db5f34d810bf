// Package stats reads what containers and pods use: control groups, and the sizes of writable layers, in the
// terms of CRI.
package stats

import (
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Cgroups reads what the processes of a control group use.
type Cgroups interface {
	Usage(group string) (cgroup.Usage, error)
}

// Layers reads what containers wrote.
type Layers interface {
	Usage(id string) (rootfs.Usage, error)

	// Dir is a directory of the file system that the layers are on.
	Dir() string
}

// Sandboxes finds the pod of a container.
type Sandboxes interface {
	Get(id string) (sandbox.Record, error)
}

// Config is what a Reader needs.
type Config struct {
	Sandboxes Sandboxes
	Cgroups   Cgroups
	Driver    cgroupdriver.Driver
	Layers    Layers
	Log       *slog.Logger
}

// Reader reads stats. It may be used by many goroutines.
type Reader struct {
	cfg     Config
	written *sizes
}

// New returns a Reader. It starts nothing.
func New(cfg Config) *Reader {
	return &Reader{cfg: cfg, written: newSizes(cfg.Layers.Usage, time.Now)}
}

// Keep forgets what is known of all containers but these.
func (r *Reader) Keep(known []container.Record) {
	live := make(map[string]bool, len(known))
	for _, c := range known {
		live[c.ID] = true
	}
	r.written.keep(live)
}

// readers is how many containers are read at once: the kernel does the work, on several processors.
const readers = 4

// Containers returns the stats of containers, in their order. It leaves out and logs one that cannot be read:
// that must not hide the others.
func (r *Reader) Containers(containers []container.Record) []*runtimeapi.ContainerStats {
	all := make([]*runtimeapi.ContainerStats, len(containers))
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(readers, runtime.GOMAXPROCS(0), len(containers)) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				st, err := r.Container(containers[i])
				if err != nil {
					id := containers[i].ID
					r.cfg.Log.Warn("container is left out of the stats", "container", id, "err", err)
				}

				all[i] = st
			}
		})
	}

	group.Wait()
	return slices.DeleteFunc(all, func(st *runtimeapi.ContainerStats) bool { return st == nil })
}

// Container returns the stats of a container. Only one that runs has more than a writable layer.
func (r *Reader) Container(c container.Record) (*runtimeapi.ContainerStats, error) {
	config := c.ContainerConfig()
	layer, err := r.layer(c.ID)
	if err != nil {
		return nil, err
	}

	st := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id:          c.ID,
			Metadata:    config.GetMetadata(),
			Labels:      config.GetLabels(),
			Annotations: config.GetAnnotations(),
		},
		WritableLayer: layer,
	}

	pod, err := r.cfg.Sandboxes.Get(c.Sandbox)
	if err != nil || c.State != life.Running {
		return st, nil
	}

	usage, err := r.cfg.Cgroups.Usage(r.cfg.Driver.Dir(pod.CgroupParent(), c.ID))
	if errors.Is(err, fs.ErrNotExist) {
		// It is ending just now.
		return st, nil
	}

	if err != nil {
		return nil, err
	}

	st.Cpu = cpuUsage(usage)
	st.Memory = memoryUsage(usage)
	st.Swap = &runtimeapi.SwapUsage{
		Timestamp:      usage.Time.UnixNano(),
		SwapUsageBytes: value(usage.Swap),
	}

	return st, nil
}

// layer returns the usage of a container's writable layer.
func (r *Reader) layer(id string) (*runtimeapi.FilesystemUsage, error) {
	written, counted, err := r.written.of(id)
	if err != nil {
		return nil, err
	}
	return &runtimeapi.FilesystemUsage{
		Timestamp:  counted.UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: r.cfg.Layers.Dir()},
		UsedBytes:  value(uint64(written.Bytes)),
		InodesUsed: value(uint64(written.Inodes)),
	}, nil
}

// Pod returns the stats of a sandbox and of its containers. A sandbox without a control group of its own, or
// whose control group is gone, has none but those of the containers.
func (r *Reader) Pod(pod sandbox.Record, containers []container.Record) *runtimeapi.PodSandboxStats {
	config := pod.PodConfig()
	st := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id:          pod.ID,
			Metadata:    config.GetMetadata(),
			Labels:      config.GetLabels(),
			Annotations: config.GetAnnotations(),
		},
		Linux: &runtimeapi.LinuxPodSandboxStats{Containers: r.Containers(containers)},
	}
	if pod.CgroupParent() == "" {
		return st
	}

	usage, err := r.cfg.Cgroups.Usage(r.cfg.Driver.Dir(pod.CgroupParent(), ""))
	if err != nil {
		return st
	}

	st.Linux.Cpu = cpuUsage(usage)
	st.Linux.Memory = memoryUsage(usage)
	st.Linux.Process = &runtimeapi.ProcessUsage{
		Timestamp:    usage.Time.UnixNano(),
		ProcessCount: value(usage.PIDs),
	}

	return st
}

func cpuUsage(u cgroup.Usage) *runtimeapi.CpuUsage {
	return &runtimeapi.CpuUsage{
		Timestamp:            u.Time.UnixNano(),
		UsageCoreNanoSeconds: value(uint64(u.CPU)),
	}
}

func memoryUsage(u cgroup.Usage) *runtimeapi.MemoryUsage {
	m := &runtimeapi.MemoryUsage{
		Timestamp:       u.Time.UnixNano(),
		WorkingSetBytes: value(u.WorkingSet),
		UsageBytes:      value(u.Memory),
		RssBytes:        value(u.RSS),
		PageFaults:      value(u.PageFaults),
		MajorPageFaults: value(u.MajorPageFaults),
	}
	if u.MemoryLimit > u.WorkingSet {
		m.AvailableBytes = value(u.MemoryLimit - u.WorkingSet)
	}

	return m
}

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
