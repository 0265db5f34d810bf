// Package stats answers what containers and pods use, in the terms of CRI: control groups, network
// interfaces, and the sizes of writable layers.
package stats

import (
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/stats/meter"
	"github.com/trivet-node/trivet/cri/stats/series"
	"github.com/trivet-node/trivet/internal/diskusage"
)

// Layers measures what containers wrote (layer.Meter).
type Layers interface {
	// Measure returns what a container wrote; activity changes whenever it runs. The Time of the figure is
	// zero if nothing is known yet.
	Measure(id string, activity int64) diskusage.Figure

	// Keep forgets all containers for which it returns false.
	Keep(keep func(id string) bool)

	// Dir is a directory of the file system that the layers are on.
	Dir() string
}

// Sandboxes finds the pod of a container.
type Sandboxes interface {
	Get(id string) (sandbox.Record, error)

	// Netns returns the path of a pod's network namespace; empty for the host's.
	Netns(pod sandbox.Record) string
}

// Config is what a Reader needs.
type Config struct {
	Sandboxes Sandboxes
	Cgroups   meter.Cgroups
	Driver    cgroupdriver.Driver
	Layers    Layers
	Log       *slog.Logger

	// V2 is true on a machine with cgroup v2, HugePages where huge pages are counted.
	V2, HugePages bool
}

// Reader reads stats. It may be used by many goroutines.
type Reader struct {
	cfg    Config
	meter  *meter.Meter
	series *series.Series
}

// New returns a Reader. It starts nothing.
func New(cfg Config) *Reader {
	r := &Reader{cfg: cfg, meter: meter.New(cfg.Cgroups)}
	r.series = series.New(series.Config{
		Meter:     r.meter,
		V2:        cfg.V2,
		HugePages: cfg.HugePages,
		Written:   cfg.Layers.Measure,
		Dir:       cfg.Layers.Dir(),
	})

	return r
}

// Pod is a pod that is asked about.
type Pod struct {
	Sandbox    sandbox.Record
	Containers []container.Record
}

// Keep forgets what is known of all containers but these.
func (r *Reader) Keep(known []container.Record) {
	live := make(map[string]bool, len(known))
	for _, c := range known {
		live[c.ID] = true
	}
	r.cfg.Layers.Keep(func(id string) bool { return live[id] })
}

// Pods returns the stats of pods and of their containers, in the order of the pods.
func (r *Reader) Pods(pods []Pod) []*runtimeapi.PodSandboxStats {
	r.readNetworks(pods)
	return each(pods, r.Pod)
}

// readNetworks has the networks of pods read together.
func (r *Reader) readNetworks(pods []Pod) {
	var paths []string
	for _, pod := range pods {
		if path := r.cfg.Sandboxes.Netns(pod.Sandbox); path != "" {
			paths = append(paths, path)
		}
	}
	r.meter.ReadNetworks(paths)
}

// Containers returns the stats of containers, in their order. It leaves out and logs one that cannot be read:
// that must not hide the others.
func (r *Reader) Containers(containers []container.Record) []*runtimeapi.ContainerStats {
	all := each(containers, r.containerOrNil)
	return slices.DeleteFunc(all, func(st *runtimeapi.ContainerStats) bool { return st == nil })
}

func (r *Reader) containerOrNil(c container.Record) *runtimeapi.ContainerStats {
	st, err := r.Container(c)
	if err != nil {
		r.cfg.Log.Warn("container is left out of the stats", "container", c.ID, "err", err)
		return nil
	}
	return st
}

// readers is how many of a list are read at once: the kernel does the work, on several processors.
const readers = 4

// each calls f for each of a list, some at once, and returns the results in the order of the list.
func each[T, R any](list []T, f func(T) R) []R {
	results := make([]R, len(list))
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(readers, runtime.GOMAXPROCS(0), len(list)) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				results[i] = f(list[i])
			}
		})
	}

	group.Wait()
	return results
}
