// Package series makes the metrics of pods and containers (CRI's ListPodSandboxMetrics) under the names,
// labels and units of cAdvisor's, which kubelet serves at /metrics/cadvisor. Values are whole numbers in CRI:
// seconds are rounded down.
package series

import (
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/stats/meter"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/diskusage"
)

// Config is what Series need.
type Config struct {
	Meter *meter.Meter

	// V2 is true on a machine with cgroup v2, HugePages where huge pages are counted.
	V2, HugePages bool

	// Written measures a container's writable layer; activity is its CPU time in nanoseconds. The Time is
	// zero if nothing is known yet.
	Written func(id string, activity int64) diskusage.Figure

	// Dir is a directory of the file system of the writable layers.
	Dir string
}

// Pod is a pod sandbox.
type Pod struct {
	ID, Namespace, Name string

	// Group is the pod's control group; empty if it has none of its own.
	Group string

	// Quota is the CPU quota of the group; 0 is none.
	Quota int64

	// Netns is the path of the pod's network namespace; empty for the host's.
	Netns string

	// Containers are those that run.
	Containers []Container
}

// Container is a container that runs.
type Container struct {
	ID, Name string

	// Image is the image's name as it was asked for.
	Image   string
	Group   string
	Created time.Time
	Started time.Time

	// Pid is the process ID of its first process.
	Pid       int
	Resources *runtimeapi.LinuxContainerResources
}

// Series makes metrics. It may be used by many goroutines.
type Series struct {
	cfg     Config
	devices devices
}

// New returns Series. It starts nothing.
func New(cfg Config) *Series { return &Series{cfg: cfg, devices: devices{dir: cfg.Dir}} }

// Descriptors describes the metrics that there are on this machine. They never change.
func (s *Series) Descriptors() []*runtimeapi.MetricDescriptor {
	var all []*runtimeapi.MetricDescriptor
	for _, f := range families {
		if f.needs == version2 && !s.cfg.V2 || f.needs == hugePages && !s.cfg.HugePages {
			continue
		}
		all = append(all, f.descriptor())
	}
	return all
}

// Pod returns the metrics of a pod and of its containers. What cannot be read, such as a container that is
// just ending, has none.
func (s *Series) Pod(pod Pod) *runtimeapi.PodSandboxMetrics {
	out := &runtimeapi.PodSandboxMetrics{PodSandboxId: pod.ID, Metrics: s.pod(pod)}
	for _, c := range pod.Containers {
		out.ContainerMetrics = append(out.ContainerMetrics, &runtimeapi.ContainerMetrics{
			ContainerId: c.ID,
			Metrics:     s.container(pod, c),
		})
	}
	return out
}

// podFamilies is how many metrics a pod has, with one network interface and some devices.
const podFamilies = 64

// pod returns the metrics of a pod's control group, as cAdvisor has them, and of its network.
func (s *Series) pod(pod Pod) []*runtimeapi.Metric {
	b := newBuilder(podFamilies, baseValues{
		id:        pod.Group,
		namespace: pod.Namespace,
		pod:       pod.Name,
	})

	if pod.Group != "" {
		if sample, err := s.cfg.Meter.Group(pod.Group, usage.Full); err == nil {
			b.at = sample.Time.UnixNano()
			s.group(b, &sample.Reading, pod.Quota)
		}
	}

	if pod.Netns != "" {
		s.network(b.of(pod.ID), pod.Netns)
	}

	return b.metrics
}

// network adds the metrics of a pod's interfaces.
func (s *Series) network(b *builder, path string) {
	interfaces, at, err := s.cfg.Meter.Network(path)
	if err != nil {
		return
	}

	b.at = at.UnixNano()
	for _, i := range interfaces {
		labels := b.with(i.Name)
		b.labeled(rxBytes, labels, i.Received.Bytes)
		b.labeled(rxPackets, labels, i.Received.Packets)
		b.labeled(rxDropped, labels, i.Received.Dropped)
		b.labeled(rxErrors, labels, i.Received.Errors)
		b.labeled(txBytes, labels, i.Sent.Bytes)
		b.labeled(txPackets, labels, i.Sent.Packets)
		b.labeled(txDropped, labels, i.Sent.Dropped)
		b.labeled(txErrors, labels, i.Sent.Errors)
	}
}

// containerFamilies is how many metrics a container has, with some devices.
const containerFamilies = 80

// container returns the metrics of a container.
func (s *Series) container(pod Pod, c Container) []*runtimeapi.Metric {
	sample, err := s.cfg.Meter.Group(c.Group, usage.Full)
	if err != nil {
		return nil
	}

	b := newBuilder(containerFamilies, baseValues{
		container: c.Name,
		id:        c.Group,
		image:     c.Image,
		name:      c.ID,
		namespace: pod.Namespace,
		pod:       pod.Name,
	})

	b.at = sample.Time.UnixNano()
	b.add(lastSeen, uint64(sample.Time.Unix()))
	b.add(creationTime, uint64(max(c.Created.Unix(), 0)))
	b.add(startTime, uint64(max(c.Started.Unix(), 0)))
	s.spec(b, c.Resources)
	s.group(b, &sample.Reading, c.Resources.GetCpuQuota())
	s.processes(b, c.Group, c.Pid)
	s.files(b, c.ID, sample.CPU)
	return b.metrics
}

// defaultPeriod is the kernel's period of CPU quotas, in microseconds.
const defaultPeriod = 100_000

// spec adds what the container was asked to be.
func (s *Series) spec(b *builder, r *runtimeapi.LinuxContainerResources) {
	period := r.GetCpuPeriod()
	if period == 0 {
		period = defaultPeriod
	}

	b.add(specPeriod, uint64(period))
	if r.GetCpuQuota() > 0 {
		b.add(specQuota, uint64(r.GetCpuQuota()))
	}

	memory := max(r.GetMemoryLimitInBytes(), 0)
	swap := max(r.GetMemorySwapLimitInBytes(), 0)
	if s.cfg.V2 {
		// The limit of CRI is that of memory and swap together, as the kernel has it on v1.
		swap = max(swap-memory, 0)
	}

	b.add(specShares, uint64(max(r.GetCpuShares(), 0)))
	b.add(specMemory, uint64(memory))
	b.add(specSwap, uint64(swap))
	b.add(specReservation, 0)
}
