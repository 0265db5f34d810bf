// Package stats answers the node's statistics endpoints: kubelet's /stats/summary and Prometheus metrics by kubelet's names. Figures of
// pods and containers are the container runtime's (CRI stats), those of the node come from /proc; nothing is sampled in between calls.
package stats

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/node/plan"
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

// Collector gathers the figures when asked.
type Collector struct {
	cfg   Config
	start time.Time

	mu   sync.Mutex
	last map[string]sample // by name: for rates where the runtime gives none

	asked questions
}

type sample struct {
	at    time.Time
	total uint64
}

// New returns a collector.
func New(cfg Config) *Collector {
	return &Collector{cfg: cfg, start: time.Now(), last: map[string]sample{}}
}

// Summary is kubelet's /stats/summary.
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

// sandboxes returns the figures of all pods, sorted by name: of the newest sandbox of each and, as with kubelet,
// of its running containers. The figures of one that has ended, as an init container has, do not count. started
// is when the running containers were made, by ID.
func (c *Collector) sandboxes(ctx context.Context) (pods []runtime.PodStats, started map[string]time.Time, err error) {
	all, err := c.cfg.Runtime.Stats(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("statistics of the container runtime: %w", err)
	}
	started, err = c.running(ctx)
	if err != nil {
		return nil, nil, err
	}

	newest := map[string]runtime.PodStats{}
	for _, s := range all {
		if old, ok := newest[s.Pod.UID]; !ok || old.Attempt < s.Attempt {
			newest[s.Pod.UID] = s
		}
	}
	for _, s := range newest {
		s.Containers = slices.DeleteFunc(s.Containers, func(one runtime.ContainerStats) bool {
			_, runs := started[one.ID]
			return !runs
		})
		pods = append(pods, s)
	}
	slices.SortFunc(pods, func(a, b runtime.PodStats) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return pods, started, nil
}

// running returns when the running containers were made, by ID. That is a moment before they started; the list has
// no other time.
func (c *Collector) running(ctx context.Context) (map[string]time.Time, error) {
	found, err := c.cfg.Runtime.Containers(ctx, runtime.Selection{Running: true})
	if err != nil {
		return nil, fmt.Errorf("containers of the container runtime: %w", err)
	}
	out := map[string]time.Time{}
	for _, one := range found {
		if one.State == plan.Running {
			out[one.ID] = one.Created
		}
	}
	return out, nil
}

func (c *Collector) pods(ctx context.Context, few bool) ([]statsapi.PodStats, error) {
	sandboxes, started, err := c.sandboxes(ctx)
	if err != nil {
		return nil, err
	}
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
			stats := c.container(one, few)
			stats.StartTime = metav1.NewTime(started[one.ID])
			pod.Containers = append(pod.Containers, stats)
		}

		p := known[s.Pod.UID]
		if p != nil && p.Status.StartTime != nil {
			pod.StartTime = *p.Status.StartTime
		}
		if !few {
			pod.Network = s.Network
			if s.Processes != nil {
				pod.ProcessStats = &statsapi.ProcessStats{ProcessCount: s.Processes}
			}
			if p != nil {
				pod.VolumeStats = c.volumes(p)
			}
		}
		out = append(out, pod)
	}
	return out, nil
}

func (c *Collector) container(s runtime.ContainerStats, few bool) statsapi.ContainerStats {
	out := statsapi.ContainerStats{
		Name:   s.Name,
		CPU:    c.cpu("container/"+s.ID, s.CPU),
		Memory: s.Memory,
	}
	if !few {
		out.Rootfs = s.Rootfs
	}
	return out
}

// cpu adds a rate that the runtime does not give, computed from the reading before.
func (c *Collector) cpu(name string, u *statsapi.CPUStats) *statsapi.CPUStats {
	if u != nil && u.UsageNanoCores == nil && u.UsageCoreNanoSeconds != nil {
		u.UsageNanoCores = c.rate(name, sample{u.Time.Time, *u.UsageCoreNanoSeconds})
	}
	return u
}

// rate returns the mean since the last reading, nil for the first. Readings of what is gone are dropped when there
// are many.
func (c *Collector) rate(name string, now sample) *uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, ok := c.last[name]
	if len(c.last) > 2048 {
		clear(c.last)
	}
	c.last[name] = now
	elapsed := now.at.Sub(before.at).Nanoseconds()
	if !ok || elapsed <= 0 || now.total < before.total {
		return nil
	}
	return new(uint64(float64(now.total-before.total) / float64(elapsed) * 1e9))
}

// volumes are those of the pod that are a file system of their own; sizes of plain directories are not counted.
func (c *Collector) volumes(pod *v1.Pod) []statsapi.VolumeStats {
	var out []statsapi.VolumeStats
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		found, err := filepath.Glob(filepath.Join(c.cfg.Root, "pods", string(pod.UID), "volumes", "*", vol.Name))
		if err != nil {
			continue
		}
		claim := ""
		switch {
		case vol.PersistentVolumeClaim != nil:
			claim = vol.PersistentVolumeClaim.ClaimName
		case vol.Ephemeral != nil:
			claim = pod.Name + "-" + vol.Name
		}
		if claim != "" || vol.CSI != nil {
			found = c.csiMounts(pod, vol.Name, claim)
		}
		for _, dir := range found {
			if fs := c.asked.usage(dir, mountUsage); fs != nil {
				one := statsapi.VolumeStats{FsStats: *fs, Name: vol.Name}
				if claim != "" {
					one.PVCRef = &statsapi.PVCReference{Name: claim, Namespace: pod.Namespace}
				}
				out = append(out, one)
			}
		}
	}
	return out
}

// csiMounts are where the pod's volume can be: by its own name if it is inline; else there is one directory for each claim, named after
// the persistent volume, which is unambiguous only if the pod has one claim.
func (c *Collector) csiMounts(pod *v1.Pod, name, claim string) []string {
	base := filepath.Join(c.cfg.Root, "pods", string(pod.UID), "volumes", "kubernetes.io~csi")
	if claim == "" {
		return []string{filepath.Join(base, name, "mount")}
	}
	found, err := filepath.Glob(filepath.Join(base, "*", "mount"))
	if err != nil || len(found) != 1 {
		return nil
	}
	return found
}

// answerTime is how long a volume has to tell its usage.
const answerTime = time.Second

// questions are those to file systems that have not answered: one whose server is gone never does.
type questions struct {
	mu   sync.Mutex
	open map[string]bool // by directory
}

// usage asks for the usage of a directory. It is nil when there is no answer in time, and while there is none
// to an earlier question.
func (q *questions) usage(dir string, ask func(string) *statsapi.FsStats) *statsapi.FsStats {
	if !q.begin(dir) {
		return nil
	}
	answer := make(chan *statsapi.FsStats, 1)
	go func() {
		fs := ask(dir)
		q.end(dir)
		answer <- fs
	}()

	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case fs := <-answer:
		return fs
	case <-timer.C:
		return nil
	}
}

func (q *questions) begin(dir string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open[dir] {
		return false
	}
	if q.open == nil {
		q.open = map[string]bool{}
	}
	q.open[dir] = true
	return true
}

func (q *questions) end(dir string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, dir)
}

// mountUsage is the usage of what is mounted on a directory.
func mountUsage(dir string) *statsapi.FsStats {
	if mounted, err := mount.Mounted(dir); err != nil || !mounted {
		return nil
	}
	return diskUsage(dir)
}

func diskUsage(dir string) *statsapi.FsStats {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return nil
	}
	size := uint64(st.Bsize)
	return &statsapi.FsStats{Time: metav1.Now(), AvailableBytes: new(st.Bavail * size), CapacityBytes: new(st.Blocks * size), UsedBytes: new((st.Blocks - st.Bfree) * size),
		Inodes: new(st.Files), InodesFree: new(st.Ffree), InodesUsed: new(st.Files - st.Ffree)}
}

func readFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	return string(data), err
}
