// Package stats answers the node's statistics endpoints: kubelet's /stats/summary and Prometheus metrics by
// kubelet's names. Figures of pods and containers are the container runtime's (CRI stats), those of the node
// come from /proc; nothing is sampled in between calls.
package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/internal/mount"
)

// Config is what a Collector needs.
type Config struct {
	NodeName string
	Root     string // kubelet's root directory
	Runtime  cri.RuntimeServiceClient
	Images   cri.ImageServiceClient
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

// sandboxes are the stats of all pods, the newest sandbox of each, with their running containers, as kubelet
// has them; and when those were made, by ID. One that has ended (an init container) has no figures that
// count.
func (c *Collector) sandboxes(ctx context.Context) ([]*cri.PodSandboxStats, map[string]int64, error) {
	answer, err := c.cfg.Runtime.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{})
	if err != nil {
		return nil, nil, fmt.Errorf("statistics of the container runtime: %w", err)
	}

	running, err := c.running(ctx)
	if err != nil {
		return nil, nil, err
	}

	newest := map[string]*cri.PodSandboxStats{}
	for _, s := range answer.Stats {
		m := s.GetAttributes().GetMetadata()
		if old := newest[m.GetUid()]; old == nil || old.Attributes.Metadata.Attempt < m.GetAttempt() {
			newest[m.GetUid()] = s
		}
	}

	out := make([]*cri.PodSandboxStats, 0, len(newest))
	for _, s := range newest {
		out = append(out, s)
	}

	slices.SortFunc(out, func(a, b *cri.PodSandboxStats) int {
		return strings.Compare(
			a.Attributes.Metadata.Namespace+"/"+a.Attributes.Metadata.Name,
			b.Attributes.Metadata.Namespace+"/"+b.Attributes.Metadata.Name,
		)
	})

	for _, s := range out {
		if s.Linux != nil {
			s.Linux.Containers = slices.DeleteFunc(s.Linux.Containers, func(one *cri.ContainerStats) bool {
				return running[one.GetAttributes().GetId()] == 0
			})
		}
	}

	return out, running, nil
}

// running tells of the running containers when they were made, which is a moment before they started; the
// list has no other time.
func (c *Collector) running(ctx context.Context) (map[string]int64, error) {
	answer, err := c.cfg.Runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, fmt.Errorf("containers of the container runtime: %w", err)
	}

	out := map[string]int64{}
	for _, one := range answer.Containers {
		if one.State == cri.ContainerState_CONTAINER_RUNNING {
			out[one.Id] = one.CreatedAt
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
		m := s.Attributes.Metadata
		pod := statsapi.PodStats{
			PodRef:     statsapi.PodReference{Name: m.Name, Namespace: m.Namespace, UID: m.Uid},
			Containers: []statsapi.ContainerStats{},
		}

		pod.CPU, pod.Memory = c.cpu("pod/"+m.Uid, s.Linux.GetCpu()), memory(s.Linux.GetMemory())
		for _, one := range s.Linux.GetContainers() {
			stats := c.container(one, few)
			stats.StartTime = stamp(started[one.GetAttributes().GetId()])
			pod.Containers = append(pod.Containers, stats)
		}

		p := known[m.Uid]
		if p != nil && p.Status.StartTime != nil {
			pod.StartTime = *p.Status.StartTime
		}

		if !few {
			pod.Network = network(s.Linux.GetNetwork())
			if n := s.Linux.GetProcess().GetProcessCount(); n != nil {
				pod.ProcessStats = &statsapi.ProcessStats{ProcessCount: new(n.Value)}
			}
			if p != nil {
				pod.VolumeStats = c.volumes(p)
			}
		}

		out = append(out, pod)
	}

	return out, nil
}

func (c *Collector) container(s *cri.ContainerStats, few bool) statsapi.ContainerStats {
	out := statsapi.ContainerStats{Name: s.GetAttributes().GetMetadata().GetName()}
	out.CPU, out.Memory = c.cpu("container/"+s.GetAttributes().GetId(), s.Cpu), memory(s.Memory)
	if !few && s.WritableLayer != nil {
		out.Rootfs = &statsapi.FsStats{
			Time:       stamp(s.WritableLayer.Timestamp),
			UsedBytes:  value(s.WritableLayer.UsedBytes),
			InodesUsed: value(s.WritableLayer.InodesUsed),
		}
	}
	return out
}

func stamp(nanos int64) metav1.Time { return metav1.NewTime(time.Unix(0, nanos)) }

func value(v *cri.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return new(v.Value)
}

// cpu converts the runtime's figures; a rate that it does not give is computed from the reading before.
func (c *Collector) cpu(name string, u *cri.CpuUsage) *statsapi.CPUStats {
	if u == nil {
		return nil
	}

	out := &statsapi.CPUStats{
		Time:                 stamp(u.Timestamp),
		UsageCoreNanoSeconds: value(u.UsageCoreNanoSeconds),
		UsageNanoCores:       value(u.UsageNanoCores),
	}
	if out.UsageNanoCores == nil && out.UsageCoreNanoSeconds != nil {
		out.UsageNanoCores = c.rate(name, sample{out.Time.Time, *out.UsageCoreNanoSeconds})
	}

	return out
}

// rate is the mean since the last reading, nil for the first. Readings of what is gone are dropped when there
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

func memory(m *cri.MemoryUsage) *statsapi.MemoryStats {
	if m == nil {
		return nil
	}

	return &statsapi.MemoryStats{
		Time:            stamp(m.Timestamp),
		AvailableBytes:  value(m.AvailableBytes),
		UsageBytes:      value(m.UsageBytes),
		WorkingSetBytes: value(m.WorkingSetBytes),
		RSSBytes:        value(m.RssBytes),
		PageFaults:      value(m.PageFaults),
		MajorPageFaults: value(m.MajorPageFaults),
	}
}

func network(n *cri.NetworkUsage) *statsapi.NetworkStats {
	if n == nil || n.DefaultInterface == nil {
		return nil
	}

	one := func(i *cri.NetworkInterfaceUsage) statsapi.InterfaceStats {
		return statsapi.InterfaceStats{
			Name:     i.Name,
			RxBytes:  value(i.RxBytes),
			RxErrors: value(i.RxErrors),
			TxBytes:  value(i.TxBytes),
			TxErrors: value(i.TxErrors),
		}
	}

	out := &statsapi.NetworkStats{Time: stamp(n.Timestamp), InterfaceStats: one(n.DefaultInterface)}
	for _, i := range append([]*cri.NetworkInterfaceUsage{n.DefaultInterface}, n.Interfaces...) {
		out.Interfaces = append(out.Interfaces, one(i))
	}

	return out
}

// volumes are those of the pod that are a file system of their own; sizes of plain directories are not
// counted.
func (c *Collector) volumes(pod *v1.Pod) []statsapi.VolumeStats {
	var out []statsapi.VolumeStats
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		found, err := filepath.Glob(filepath.Join(
			c.cfg.Root,
			"pods",
			string(pod.UID),
			"volumes",
			"*",
			vol.Name,
		))
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

// csiMounts are where the pod's volume can be: by its own name if it is inline; else there is one directory
// for each claim, named after the persistent volume, which is unambiguous only if the pod has one claim.
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
	return &statsapi.FsStats{
		Time:           metav1.Now(),
		AvailableBytes: new(st.Bavail * size),
		CapacityBytes:  new(st.Blocks * size),
		UsedBytes:      new((st.Blocks - st.Bfree) * size),
		Inodes:         new(st.Files),
		InodesFree:     new(st.Ffree),
		InodesUsed:     new(st.Files - st.Ffree),
	}
}

func readFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	return string(data), err
}
