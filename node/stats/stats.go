// Package stats answers the node's statistics endpoints as kubelet does: /stats/summary, and the pages
// /metrics/resource and /metrics/cadvisor. What control groups use is read by node/usage, once for all who
// ask within some seconds, what files take by node/localstorage, and what the machine has by node/machine.
// Nothing is sampled when nobody asks.
package stats

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/usage"
)

// Meter reads control groups (usage.Meter).
type Meter interface {
	Take(ctx context.Context, depth usage.Depth) (*usage.Snapshot, error)
}

// Storage knows what pods take of the node's disk (localstorage.Meter).
type Storage interface {
	Usage(ctx context.Context) (map[types.UID]localstorage.Pod, error)
}

// Drivers say what is used of the volumes that they have published (csivolume.Mounter).
type Drivers interface {
	VolumeStats(ctx context.Context) ([]csivolume.VolumeStats, error)
}

// Runtime is where the figures of images are from (runtime.Client).
type Runtime interface {
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
	Sandboxes(ctx context.Context, which runtime.Selection) ([]runtime.Sandbox, error)
	// ImageFS returns a directory of the file system that holds the images, and how much of it they use.
	ImageFS(ctx context.Context) (dir string, used *statsapi.FsStats, err error)
}

// Config is what a Collector needs.
type Config struct {
	NodeName string
	Root     string // kubelet's root directory
	Meter    Meter
	Storage  Storage
	Drivers  Drivers
	Runtime  Runtime
	Pods     func() []*v1.Pod
	Machine  machine.Machine
}

// Collector gathers figures when it is asked. Its methods may be called at the same time.
type Collector struct {
	cfg       Config
	questions questions
	// measure returns the figures of what is mounted on a directory, nil if nothing is.
	measure func(dir string) *statsapi.FsStats
}

// New returns a collector.
func New(cfg Config) *Collector { return &Collector{cfg: cfg, measure: mountUsage} }

// Summary returns what kubelet's /stats/summary has. Only CPU and memory cost less than all: no file system
// is asked.
func (c *Collector) Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error) {
	depth := usage.Everything
	if onlyCPUAndMemory {
		depth = usage.CPUAndMemory
	}

	s, err := c.cfg.Meter.Take(ctx, depth)
	if err != nil {
		return nil, fmt.Errorf("use of the control groups: %w", err)
	}
	if s.Err != nil {
		return nil, s.Err
	}
	if s.Node == nil {
		return nil, errors.New("the root of the control groups cannot be read")
	}

	if onlyCPUAndMemory {
		return &statsapi.Summary{Node: c.node(s), Pods: podsOf(s)}, nil
	}

	return c.whole(ctx, s), nil
}

// whole is the summary with networks, file systems and volumes. Without an answer from one that is asked for
// these, the others are shown.
func (c *Collector) whole(ctx context.Context, s *usage.Snapshot) *statsapi.Summary {
	out := &statsapi.Summary{Node: c.node(s)}
	disks := disks{
		node:   diskUsage(c.cfg.Root),
		images: c.imageFS(ctx),
	}

	c.addToNode(&out.Node, s, disks)

	written, err := c.cfg.Storage.Usage(ctx)
	if err != nil {
		written = nil
	}

	said := c.askDrivers(ctx)
	known := map[string]*v1.Pod{}
	for _, p := range c.cfg.Pods() {
		known[string(p.UID)] = p
	}

	out.Pods = podsOf(s)
	for i := range out.Pods {
		pod := &out.Pods[i]
		addRest(pod, &s.Pods[i])

		// A pod that the agent does not know any more may still have a sandbox: it has no volumes then.
		if p := known[pod.PodRef.UID]; p != nil {
			pod.VolumeStats = c.volumes(p, said)
		}

		if w, ok := written[types.UID(pod.PodRef.UID)]; ok {
			addStorage(pod, w, disks)
		}
	}

	return out
}

// disks are the file systems of the node and of images. What cannot be asked is nil.
type disks struct{ node, images *statsapi.FsStats }
