package stats

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/usage"
)

// podsOf returns the CPU and memory of pods, and of the containers that run in them.
func podsOf(s *usage.Snapshot) []statsapi.PodStats {
	out := make([]statsapi.PodStats, 0, len(s.Pods))
	for i := range s.Pods {
		p := &s.Pods[i]
		pod := statsapi.PodStats{
			PodRef:     statsapi.PodReference{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
			StartTime:  metav1.NewTime(p.Created),
			CPU:        cpuOf(p.Group),
			Memory:     memoryOf(p.Group),
			Swap:       swapOf(p.Group),
			Containers: make([]statsapi.ContainerStats, 0, len(p.Containers)),
		}

		for _, c := range p.Containers {
			// One that has ended meanwhile has no figures: metrics-server would drop the whole pod for a
			// container without CPU.
			if c.Group == nil {
				continue
			}

			pod.Containers = append(pod.Containers, statsapi.ContainerStats{
				Name:      c.Name,
				StartTime: metav1.NewTime(c.Created),
				CPU:       cpuOf(c.Group),
				Memory:    memoryOf(c.Group),
				Swap:      swapOf(c.Group),
				IO:        ioOf(c.Group),
			})
		}

		out = append(out, pod)
	}

	return out
}

// addRest adds what is neither CPU nor memory, and is known of control groups.
func addRest(pod *statsapi.PodStats, p *usage.Pod) {
	pod.IO = ioOf(p.Group)
	if p.Group != nil {
		pod.Network = networkOf(p.Interfaces, p.Group.Time)
	}

	var processes uint64
	for _, c := range p.Containers {
		if c.Group != nil && c.Group.Processes != nil {
			processes += c.Group.Processes.Count
		}
	}

	pod.ProcessStats = &statsapi.ProcessStats{ProcessCount: new(processes)}
}

// addStorage adds what the pod's files take.
func addStorage(pod *statsapi.PodStats, w localstorage.Pod, d disks) {
	for i := range pod.Containers {
		c := &pod.Containers[i]
		written, ok := w.Containers[c.Name]
		if !ok {
			continue
		}

		c.Rootfs = filesOn(d.images, written.Layer)
		c.Logs = filesOn(d.node, written.Logs)
	}

	listed := map[string]bool{}
	for _, v := range pod.VolumeStats {
		listed[v.Name] = true
	}

	for name, v := range w.Volumes {
		if listed[name] {
			continue
		}
		if fs := filesOn(d.node, v.Usage); fs != nil {
			pod.VolumeStats = append(pod.VolumeStats, statsapi.VolumeStats{Name: name, FsStats: *fs})
		}
	}

	pod.EphemeralStorage = filesOn(d.node, w.Total())
}

// filesOn returns what files take of a file system; nil if that is not known.
func filesOn(fs *statsapi.FsStats, u localstorage.Usage) *statsapi.FsStats {
	if u.Time.IsZero() {
		return nil
	}

	out := statsapi.FsStats{}
	if fs != nil {
		out = *fs
	}

	out.Time = metav1.NewTime(u.Time)
	out.UsedBytes = new(u.Bytes)
	out.InodesUsed = new(u.Inodes)
	return &out
}
