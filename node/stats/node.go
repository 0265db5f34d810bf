package stats

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/machine"
)

// tick is the unit of times in /proc: USER_HZ is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// node returns the figures of the whole machine.
func (c *Collector) node(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.NodeStats, error) {
	used, boot, err := c.cpuTime()
	if err != nil {
		return nil, err
	}

	memory, err := c.memory()
	if err != nil {
		return nil, err
	}

	now := metav1.Now()
	memory.Time = now
	out := &statsapi.NodeStats{
		NodeName:  c.cfg.NodeName,
		StartTime: metav1.NewTime(boot),
		CPU: &statsapi.CPUStats{
			Time:                 now,
			UsageCoreNanoSeconds: new(uint64(used)),
			UsageNanoCores:       c.rates.since("node", reading{now.Time, uint64(used)}),
		},
		Memory: memory,
	}
	if !onlyCPUAndMemory {
		out.Fs = diskUsage(c.cfg.Root)
		out.Runtime = &statsapi.RuntimeStats{ImageFs: c.imageFS(ctx)}
	}

	return out, nil
}

// imageFS returns the figures of the file system of images, as far as they are known.
func (c *Collector) imageFS(ctx context.Context) *statsapi.FsStats {
	dir, used, err := c.cfg.Runtime.ImageFS(ctx)
	if err != nil {
		return nil
	}
	fs := diskUsage(dir)
	if fs == nil {
		return used
	}
	fs.UsedBytes, fs.InodesUsed = used.UsedBytes, used.InodesUsed
	return fs
}

// procPath returns where a file of procfs is.
func (c *Collector) procPath(name string) string { return filepath.Join("/", c.root, "proc", name) }

// readProc reads a file of procfs.
func (c *Collector) readProc(name string) (string, error) {
	data, err := os.ReadFile(c.procPath(name))
	return string(data), err
}

// cpuTime returns the CPU time that the machine has used since it booted, and when that was: lines cpu and
// btime of proc_stat(5).
func (c *Collector) cpuTime() (used time.Duration, boot time.Time, err error) {
	text, err := c.readProc("stat")
	if err != nil {
		return 0, time.Time{}, err
	}

	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 9 && fields[0] == "cpu":
			used, err = busy(fields[1:9])
		case len(fields) == 2 && fields[0] == "btime":
			var seconds int64
			seconds, err = strconv.ParseInt(fields[1], 10, 64)
			boot = time.Unix(seconds, 0)
		}

		if err != nil {
			return 0, time.Time{}, fmt.Errorf("read /proc/stat: %w", err)
		}
	}

	return used, boot, nil
}

// busy adds the times of a line cpu up, but for those in which the CPU did nothing.
func busy(times []string) (time.Duration, error) {
	const idle, iowait = 3, 4
	var sum time.Duration
	for i, text := range times {
		if i == idle || i == iowait {
			continue
		}

		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return 0, err
		}

		sum += time.Duration(n) * tick
	}

	return sum, nil
}

// memory returns the figures of the machine's memory.
func (c *Collector) memory() (*statsapi.MemoryStats, error) {
	m, err := machine.Machine{Root: c.root}.Memory()
	if err != nil {
		return nil, err
	}
	return &statsapi.MemoryStats{
		AvailableBytes:  new(uint64(m.Available)),
		UsageBytes:      new(uint64(m.Total - m.Free)),
		WorkingSetBytes: new(uint64(m.Total - m.Available)),
		RSSBytes:        new(uint64(m.Anonymous)),
	}, nil
}
