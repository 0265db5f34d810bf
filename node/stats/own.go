package stats

import (
	"context"
	"os"
	goruntime "runtime"
	"strconv"
	"strings"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// states are those of containers, by their names in metrics.
var states = []struct {
	is   plan.State
	name string
}{
	{plan.Created, "created"},
	{plan.Exited, "exited"},
	{plan.Running, "running"},
	{plan.Unknown, "unknown"},
}

// own writes how many pods and containers there are, and the figures of the agent's process. What the runtime
// does not answer is left out.
func (c *Collector) own(ctx context.Context, p *page) {
	p.single("kubelet_node_name",
		"gauge", "The node's name. The count is always 1.", 1, "node", c.cfg.NodeName)

	if ready, err := c.cfg.Runtime.Sandboxes(ctx, runtime.Selection{Running: true}); err == nil {
		p.single("kubelet_running_pods", "gauge",
			"Number of pods that have a running pod sandbox", float64(len(ready)))
	}

	if all, err := c.cfg.Runtime.Containers(ctx, runtime.Selection{}); err == nil {
		count := map[plan.State]int{}
		for _, one := range all {
			count[one.State]++
		}

		p.head("kubelet_running_containers", "gauge", "Number of containers by state")
		for _, s := range states {
			p.value("kubelet_running_containers", float64(count[s.is]), "container_state", s.name)
		}
	}

	p.single("kubelet_desired_pods", "gauge",
		"The number of pods the agent is being instructed to run", float64(len(c.cfg.Pods())))
	c.process(p)
}

// process writes the usual figures of a Go program, by the names of Prometheus' client.
func (c *Collector) process(p *page) {
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	p.single("go_goroutines", "gauge",
		"Number of goroutines that currently exist.", float64(goruntime.NumGoroutine()))
	p.single("go_memstats_heap_inuse_bytes", "gauge",
		"Number of heap bytes that are in use.", float64(m.HeapInuse))
	p.single("process_start_time_seconds", "gauge",
		"Start time of the process since unix epoch in seconds.", float64(c.start.UnixMilli())/1000)

	text, err := c.readProc("self/stat")
	if err != nil {
		return
	}

	if seconds, rss, ok := parseStat(text); ok {
		p.single("process_cpu_seconds_total", "counter",
			"Total user and system CPU time spent in seconds.", seconds)
		p.single("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", rss)
	}

	if open, err := os.ReadDir(c.procPath("self/fd")); err == nil {
		p.single("process_open_fds", "gauge", "Number of open file descriptors.", float64(len(open)))
	}
}

// parseStat returns the CPU time and the resident memory of a process: fields 14 utime, 15 stime and 24 rss
// of proc_pid_stat(5).
func parseStat(text string) (cpuSeconds, rssBytes float64, ok bool) {
	// Field 2 is the program's name in parentheses, in which anything may be.
	const utime, stime, rss = 14 - 3, 15 - 3, 24 - 3
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) <= rss {
		return 0, 0, false
	}

	user, _ := strconv.ParseFloat(fields[utime], 64)
	system, _ := strconv.ParseFloat(fields[stime], 64)
	pages, _ := strconv.ParseFloat(fields[rss], 64)
	return (user + system) * tick.Seconds(), pages * float64(os.Getpagesize()), true
}
