package stats

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// tick is the unit of /proc/stat: USER_HZ is 100 on every architecture that Go runs on.
const tick = 10 * time.Millisecond

// node reads the figures of the whole machine.
func (c *Collector) node(ctx context.Context, few bool) (*statsapi.NodeStats, error) {
	used, boot, err := cpuTime()
	if err != nil {
		return nil, err
	}

	mem, err := meminfo()
	if err != nil {
		return nil, err
	}

	now := metav1.Now()
	working := mem["MemTotal"] - mem["MemAvailable"]
	out := &statsapi.NodeStats{
		NodeName:  c.cfg.NodeName,
		StartTime: metav1.NewTime(boot),
		CPU: &statsapi.CPUStats{
			Time:                 now,
			UsageCoreNanoSeconds: new(uint64(used)),
			UsageNanoCores:       c.rate("node", sample{now.Time, uint64(used)}),
		},
		Memory: &statsapi.MemoryStats{
			Time:            now,
			AvailableBytes:  new(mem["MemAvailable"]),
			UsageBytes:      new(mem["MemTotal"] - mem["MemFree"]),
			WorkingSetBytes: &working,
			RSSBytes:        new(mem["AnonPages"]),
		},
	}
	if few {
		return out, nil
	}

	out.Fs = diskUsage(c.cfg.Root)
	out.Runtime = &statsapi.RuntimeStats{ImageFs: c.imageFs(ctx)}
	return out, nil
}

func (c *Collector) imageFs(ctx context.Context) *statsapi.FsStats {
	answer, err := c.cfg.Images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil || len(answer.ImageFilesystems) == 0 {
		return nil
	}
	one := answer.ImageFilesystems[0]
	fs := diskUsage(one.GetFsId().GetMountpoint())
	if fs == nil {
		fs = &statsapi.FsStats{Time: stamp(one.Timestamp)}
	}
	fs.UsedBytes, fs.InodesUsed = value(one.UsedBytes), value(one.InodesUsed)
	return fs
}

// cpuTime is the CPU time that the machine has used since it booted, and when it booted (proc(5): cpu and
// btime of /proc/stat).
func cpuTime() (used time.Duration, boot time.Time, err error) {
	text, err := readFile("/proc/stat")
	if err != nil {
		return 0, time.Time{}, err
	}

	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		switch {
		case len(fields) >= 9 && fields[0] == "cpu":
			for i, f := range fields[1:9] {
				// idle and waiting for I/O
				if i == 3 || i == 4 {
					continue
				}

				n, err := strconv.ParseUint(f, 10, 64)
				if err != nil {
					return 0, time.Time{}, fmt.Errorf("read /proc/stat: %w", err)
				}

				used += time.Duration(n) * tick
			}

		case len(fields) == 2 && fields[0] == "btime":
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, time.Time{}, fmt.Errorf("read /proc/stat: %w", err)
			}

			boot = time.Unix(n, 0)
		}
	}

	return used, boot, nil
}

// meminfo is /proc/meminfo in bytes.
func meminfo() (map[string]uint64, error) {
	text, err := readFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}

	out := map[string]uint64{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			continue
		}

		n, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read /proc/meminfo: %w", err)
		}
		if len(fields) == 2 {
			n *= 1024
		}

		out[name] = n
	}

	return out, nil
}

// page is a text in Prometheus' exposition format.
type page struct{ bytes.Buffer }

func (p *page) head(name, kind, help string) {
	fmt.Fprintf(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// value writes one sample; labels are name, value, name, value...
func (p *page) value(name string, v float64, labels ...string) {
	p.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		sep := ","
		if i == 0 {
			sep = "{"
		}

		fmt.Fprintf(p, "%s%s=%s", sep, labels[i], quote(labels[i+1]))
	}

	if len(labels) > 1 {
		p.WriteByte('}')
	}

	p.WriteByte(' ')
	p.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
	p.WriteByte('\n')
}

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(s) + `"`
}
