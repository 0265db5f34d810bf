package stats

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/stats/series"
)

// Descriptors describes the metrics of pods and containers.
func (r *Reader) Descriptors() []*runtimeapi.MetricDescriptor { return r.series.Descriptors() }

// Metrics returns the metrics of pods and of those of their containers that run, in the order of the pods.
func (r *Reader) Metrics(pods []Pod) []*runtimeapi.PodSandboxMetrics {
	r.readNetworks(pods)
	return each(pods, func(pod Pod) *runtimeapi.PodSandboxMetrics {
		return r.series.Pod(r.seriesOf(pod))
	})
}

// seriesOf returns what the metrics of a pod are made of.
func (r *Reader) seriesOf(pod Pod) series.Pod {
	config := pod.Sandbox.PodConfig()
	parent := pod.Sandbox.CgroupParent()
	out := series.Pod{
		ID:        pod.Sandbox.ID,
		Namespace: config.GetMetadata().GetNamespace(),
		Name:      config.GetMetadata().GetName(),
		Quota:     config.GetLinux().GetResources().GetCpuQuota(),
		Netns:     r.cfg.Sandboxes.Netns(pod.Sandbox),
	}

	// Without a parent that the client has named, the group is that of many pods.
	if parent != "" {
		out.Group = r.cfg.Driver.Dir(parent, "")
	}

	for _, c := range pod.Containers {
		if c.State != life.Running {
			continue
		}

		out.Containers = append(out.Containers, series.Container{
			ID:        c.ID,
			Name:      c.ContainerConfig().GetMetadata().GetName(),
			Image:     c.ImageName,
			Group:     r.cfg.Driver.Dir(parent, c.ID),
			Created:   c.Created,
			Started:   c.Started,
			Pid:       c.Pid,
			Resources: c.CurrentResources(),
		})
	}

	return out
}
