package stats

import (
	"errors"
	"io/fs"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/stats/meter"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/diskusage"
)

// Container returns the stats of a container. Only one that runs has more than a writable layer.
func (r *Reader) Container(c container.Record) (*runtimeapi.ContainerStats, error) {
	parent := ""
	pod, err := r.cfg.Sandboxes.Get(c.Sandbox)
	if err == nil {
		parent = pod.CgroupParent()
	}
	return r.container(c, parent, err == nil)
}

// container returns the stats of a container of a pod with this cgroup parent, if there still is such a pod.
func (r *Reader) container(
	c container.Record, parent string, podIsThere bool,
) (*runtimeapi.ContainerStats, error) {
	config := c.ContainerConfig()
	st := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id:          c.ID,
			Metadata:    config.GetMetadata(),
			Labels:      config.GetLabels(),
			Annotations: config.GetAnnotations(),
		},
	}

	if !podIsThere || c.State != life.Running {
		st.WritableLayer = r.layer(c.ID, diskusage.Ended)
		return st, nil
	}

	sample, err := r.meter.Group(r.cfg.Driver.Dir(parent, c.ID), usage.Basic)
	if errors.Is(err, fs.ErrNotExist) {
		// It is ending just now.
		st.WritableLayer = r.layer(c.ID, diskusage.Ended)
		return st, nil
	}

	if err != nil {
		return nil, err
	}

	st.WritableLayer = r.layer(c.ID, int64(sample.CPU))
	st.Cpu = cpuUsage(sample)
	st.Memory = memoryUsage(sample)
	st.Swap = swapUsage(sample)
	st.Io = ioUsage(sample)
	return st, nil
}

// layer returns the usage of a container's writable layer, nil if nothing is known of it yet.
func (r *Reader) layer(id string, activity int64) *runtimeapi.FilesystemUsage {
	written := r.cfg.Layers.Measure(id, activity)
	if written.Time.IsZero() {
		return nil
	}
	return &runtimeapi.FilesystemUsage{
		Timestamp:  written.Time.UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: r.cfg.Layers.Dir()},
		UsedBytes:  value(written.Bytes),
		InodesUsed: value(written.Inodes),
	}
}

// Written returns what the writable layers of containers take together, for ImageFsInfo, and a directory of
// their file system.
func (r *Reader) Written(containers []container.Record) (total diskusage.Usage, dir string) {
	for _, one := range r.Containers(containers) {
		total.Bytes += one.WritableLayer.GetUsedBytes().GetValue()
		total.Inodes += one.WritableLayer.GetInodesUsed().GetValue()
	}
	return total, r.cfg.Layers.Dir()
}

// Pod returns the stats of a sandbox and of its containers. A sandbox without a control group of its own, or
// whose control group is gone, has none but those of the containers and of its network.
func (r *Reader) Pod(pod Pod) *runtimeapi.PodSandboxStats {
	parent := pod.Sandbox.CgroupParent()
	config := pod.Sandbox.PodConfig()
	st := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id:          pod.Sandbox.ID,
			Metadata:    config.GetMetadata(),
			Labels:      config.GetLabels(),
			Annotations: config.GetAnnotations(),
		},
		Linux: &runtimeapi.LinuxPodSandboxStats{Network: r.network(r.cfg.Sandboxes.Netns(pod.Sandbox))},
	}

	for _, c := range pod.Containers {
		one, err := r.container(c, parent, true)
		if err != nil {
			r.cfg.Log.Warn("container is left out of the stats", "container", c.ID, "err", err)
			continue
		}

		st.Linux.Containers = append(st.Linux.Containers, one)
	}

	if parent == "" {
		return st
	}

	sample, err := r.meter.Group(r.cfg.Driver.Dir(parent, ""), usage.Basic)
	if err != nil {
		return st
	}

	st.Linux.Cpu = cpuUsage(sample)
	st.Linux.Memory = memoryUsage(sample)
	st.Linux.Process = processUsage(sample)
	st.Linux.Io = ioUsage(sample)
	return st
}

// defaultInterface is the name of the interface that CNI makes for a pod.
const defaultInterface = "eth0"

// network returns the usage of the interfaces of a network namespace; nil if there is none. The default
// interface is the one that CNI makes, or the first one.
func (r *Reader) network(path string) *runtimeapi.NetworkUsage {
	if path == "" {
		return nil
	}

	interfaces, at, err := r.meter.Network(path)
	if err != nil || len(interfaces) == 0 {
		return nil
	}

	first := 0
	for i := range interfaces {
		if interfaces[i].Name == defaultInterface {
			first = i
		}
	}

	out := &runtimeapi.NetworkUsage{Timestamp: at.UnixNano()}
	for i := range interfaces {
		one := &runtimeapi.NetworkInterfaceUsage{
			Name:     interfaces[i].Name,
			RxBytes:  value(interfaces[i].Received.Bytes),
			RxErrors: value(interfaces[i].Received.Errors),
			TxBytes:  value(interfaces[i].Sent.Bytes),
			TxErrors: value(interfaces[i].Sent.Errors),
		}
		if i == first {
			out.DefaultInterface = one
		} else {
			out.Interfaces = append(out.Interfaces, one)
		}
	}

	return out
}

func processUsage(s meter.Sample) *runtimeapi.ProcessUsage {
	return &runtimeapi.ProcessUsage{Timestamp: s.Time.UnixNano(), ProcessCount: value(s.PIDs)}
}
