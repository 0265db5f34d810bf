package stats

import (
	"context"
	"time"

	"github.com/trivet-node/trivet/node/cadvisor"
	"github.com/trivet-node/trivet/node/exposition"
	"github.com/trivet-node/trivet/node/usage"
)

// Cadvisor writes /metrics/cadvisor.
func (c *Collector) Cadvisor(ctx context.Context, w *exposition.Writer) (until time.Time, err error) {
	s, err := c.cfg.Meter.Take(ctx, usage.Everything)
	if err != nil {
		return time.Time{}, err
	}

	cadvisor.Write(w, s, c.machine())
	return validUntil(s), nil
}

// machine reads what the page says of the machine itself.
func (c *Collector) machine() *cadvisor.Node {
	m := c.cfg.Machine
	info := m.Info()
	out := &cadvisor.Node{
		KernelVersion: info.KernelVersion,
		OSImage:       info.OSImage,
		MachineID:     info.MachineID,
		SystemUUID:    info.SystemUUID,
		BootID:        info.BootID,
		Topology:      m.Topology(),
		DIMMs:         m.DIMMs(),
	}

	memory, err := m.Memory()
	if err != nil {
		out.Failed = true
	}

	out.MemoryBytes = uint64(memory.Total)
	out.SwapBytes = uint64(memory.Swap)

	// What is mounted below these is of pods: volumes, and what runtimes make for sandboxes.
	without := append([]string{c.cfg.Root}, runtimeDirs...)
	if out.Disks, err = m.Disks(without...); err != nil {
		out.Failed = true
	}

	return out
}

// runtimeDirs are where runtimes keep what they mount.
var runtimeDirs = []string{
	"/run/trivet",
	"/run/containerd",
	"/run/containers",
	"/var/lib/trivet",
	"/var/lib/containerd",
	"/var/lib/containers",
}
