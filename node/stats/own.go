package stats

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/usage"
)

// askTime bounds how long a scrape of the agent's own metrics waits for what it asks others for.
const askTime = 10 * time.Second

var claimLabels = []string{"namespace", "persistentvolumeclaim"}

// volumeMetrics are the figures of volumes of claims.
var volumeMetrics = []struct {
	desc *prometheus.Desc
	read func(*statsapi.FsStats) *uint64
}{
	{
		desc: volumeDesc("capacity_bytes", "Capacity in bytes of the volume"),
		read: func(fs *statsapi.FsStats) *uint64 { return fs.CapacityBytes },
	},
	{
		desc: volumeDesc("available_bytes", "Number of available bytes in the volume"),
		read: func(fs *statsapi.FsStats) *uint64 { return fs.AvailableBytes },
	},
	{
		desc: volumeDesc("used_bytes", "Number of used bytes in the volume"),
		read: func(fs *statsapi.FsStats) *uint64 { return fs.UsedBytes },
	},
	{
		desc: volumeDesc("inodes", "Maximum number of inodes in the volume"),
		read: func(fs *statsapi.FsStats) *uint64 { return fs.Inodes },
	},
	{
		desc: volumeDesc("inodes_free", "Number of free inodes in the volume"),
		read: func(fs *statsapi.FsStats) *uint64 { return fs.InodesFree },
	},
	{
		desc: volumeDesc("inodes_used", "Number of used inodes in the volume"),
		read: func(fs *statsapi.FsStats) *uint64 { return fs.InodesUsed },
	},
}

func volumeDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("kubelet_volume_stats_"+name, help, claimLabels, nil)
}

var logDesc = prometheus.NewDesc(
	"kubelet_container_log_filesystem_used_bytes",
	"Bytes used by the container's logs on the filesystem.",
	[]string{"uid", "namespace", "pod", "container"},
	nil,
)

// Describe implements prometheus.Collector: what is counted of volumes and logs for kubelet's own metrics.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range volumeMetrics {
		out <- m.desc
	}
	out <- logDesc
}

// Collect implements prometheus.Collector. What does not answer is left out.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()

	c.collectVolumes(out, c.askDrivers(ctx))
	c.collectLogs(ctx, out)
}

// collectVolumes shows each claim once, also if several pods have it.
func (c *Collector) collectVolumes(out chan<- prometheus.Metric, said driversSaid) {
	seen := map[statsapi.PVCReference]bool{}
	for _, p := range c.cfg.Pods() {
		for _, v := range c.claims(p, said) {
			if seen[*v.PVCRef] {
				continue
			}

			seen[*v.PVCRef] = true
			for _, m := range volumeMetrics {
				if n := m.read(&v.FsStats); n != nil {
					out <- gauge(m.desc, *n, v.PVCRef.Namespace, v.PVCRef.Name)
				}
			}
		}
	}
}

func (c *Collector) collectLogs(ctx context.Context, out chan<- prometheus.Metric) {
	written, err := c.cfg.Storage.Usage(ctx)
	if err != nil {
		return
	}

	s, err := c.cfg.Meter.Take(ctx, usage.CPUAndMemory)
	if err != nil {
		return
	}

	for _, p := range s.Pods {
		for _, one := range p.Containers {
			logs := written[types.UID(p.UID)].Containers[one.Name].Logs
			if !logs.Time.IsZero() {
				out <- gauge(logDesc, logs.Bytes, p.UID, p.Namespace, p.Name, one.Name)
			}
		}
	}
}

func gauge(desc *prometheus.Desc, n uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
}
