// Package stats answers the node's statistics endpoints: kubelet's /stats/summary and Prometheus metrics by
// kubelet's names. Figures of pods and containers are the container runtime's, those of the node are read
// from /proc. Nothing is sampled between calls.
package stats

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/runtime"
)

// Runtime is where the figures of pods and images are from (runtime.Client).
type Runtime interface {
	Stats(ctx context.Context) ([]runtime.PodStats, error)
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
	Sandboxes(ctx context.Context, which runtime.Selection) ([]runtime.Sandbox, error)
	// ImageFS returns a directory of the file system that holds the images, and how much of it they use.
	ImageFS(ctx context.Context) (dir string, used *statsapi.FsStats, err error)
}

// Config is what a Collector needs.
type Config struct {
	NodeName string
	Root     string // kubelet's root directory
	Runtime  Runtime
	Pods     func() []*v1.Pod
}

// Collector gathers figures when it is asked. Its methods may be called at the same time.
type Collector struct {
	cfg   Config
	start time.Time
	root  string // directory that holds /proc; empty: this machine's

	rates     rates
	questions questions
}

// New returns a collector.
func New(cfg Config) *Collector {
	return &Collector{
		cfg:   cfg,
		start: time.Now(),
	}
}

// Summary returns what kubelet's /stats/summary has. Only CPU and memory cost less than all: no file system
// is asked.
func (c *Collector) Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error) {
	pods, err := c.pods(ctx, onlyCPUAndMemory)
	if err != nil {
		return nil, err
	}
	node, err := c.node(ctx, onlyCPUAndMemory)
	if err != nil {
		return nil, err
	}
	return &statsapi.Summary{Node: *node, Pods: pods}, nil
}

func (c *Collector) pods(ctx context.Context, onlyCPUAndMemory bool) ([]statsapi.PodStats, error) {
	sandboxes, started, err := c.sandboxes(ctx)
	if err != nil {
		return nil, err
	}

	// A pod that the agent does not know any more may still have a sandbox: it is shown without what the API
	// says of it.
	known := map[string]*v1.Pod{}
	for _, p := range c.cfg.Pods() {
		known[string(p.UID)] = p
	}

	out := []statsapi.PodStats{}
	for _, s := range sandboxes {
		pod := statsapi.PodStats{
			PodRef:     statsapi.PodReference{Name: s.Pod.Name, Namespace: s.Pod.Namespace, UID: s.Pod.UID},
			CPU:        c.cpu("pod/"+s.Pod.UID, s.CPU),
			Memory:     s.Memory,
			Containers: []statsapi.ContainerStats{},
		}

		for _, one := range s.Containers {
			stats := c.container(one, onlyCPUAndMemory)
			stats.StartTime = metav1.NewTime(started[one.ID])
			pod.Containers = append(pod.Containers, stats)
		}

		p := known[s.Pod.UID]
		if p != nil && p.Status.StartTime != nil {
			pod.StartTime = *p.Status.StartTime
		}
		if !onlyCPUAndMemory {
			c.addRest(&pod, s, p)
		}

		out = append(out, pod)
	}

	return out, nil
}

// addRest adds what is neither CPU nor memory. p is the pod in the API, nil if it is gone.
func (c *Collector) addRest(pod *statsapi.PodStats, s runtime.PodStats, p *v1.Pod) {
	pod.Network = s.Network
	if s.Processes != nil {
		pod.ProcessStats = &statsapi.ProcessStats{ProcessCount: s.Processes}
	}
	if p != nil {
		pod.VolumeStats = c.volumes(p)
	}
}

func (c *Collector) container(s runtime.ContainerStats, onlyCPUAndMemory bool) statsapi.ContainerStats {
	out := statsapi.ContainerStats{
		Name:   s.Name,
		CPU:    c.cpu("container/"+s.ID, s.CPU),
		Memory: s.Memory,
	}
	if !onlyCPUAndMemory {
		out.Rootfs = s.Rootfs
	}
	return out
}

// cpu adds to the runtime's figures a rate that it does not give.
func (c *Collector) cpu(name string, u *statsapi.CPUStats) *statsapi.CPUStats {
	if u != nil && u.UsageNanoCores == nil && u.UsageCoreNanoSeconds != nil {
		u.UsageNanoCores = c.rates.since(name, reading{u.Time.Time, *u.UsageCoreNanoSeconds})
	}
	return u
}
