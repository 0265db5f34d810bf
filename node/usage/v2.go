package usage

import (
	"bytes"
	"time"
)

// readV2 reads a group of the unified hierarchy. The error is of a group that is gone.
func (r *reader) readV2(g *Group, depth Depth) error {
	dir := r.groups.Dir("", g.Path)
	if err := r.cpuV2(dir, &g.CPU); err != nil {
		return err
	}
	if err := r.memoryV2(dir, g); err != nil {
		return err
	}

	if depth == CPUAndMemory {
		return nil
	}

	r.limitsV2(dir, g)
	r.eventsV2(dir, &g.Memory)
	g.Devices = r.devicesV2(dir)
	return nil
}

func (r *reader) cpuV2(dir string, c *CPU) error {
	return r.keyed(dir, "cpu.stat", func(key []byte, n uint64) {
		micros := time.Duration(n) * time.Microsecond
		switch string(key) {
		case "usage_usec":
			c.Usage = micros
		case "user_usec":
			c.User = micros
		case "system_usec":
			c.System = micros
		case "nr_periods":
			c.Periods = n
		case "nr_throttled":
			c.ThrottledPeriods = n
		case "throttled_usec":
			c.Throttled = micros
		case "nr_bursts":
			c.BurstPeriods = n
		case "burst_usec":
			c.Burst = micros
		}
	})
}

// memoryV2 reads memory. The root group has no file with its usage: what cgroup v1 would count is taken.
func (r *reader) memoryV2(dir string, g *Group) error {
	m := &g.Memory
	if err := r.keyed(dir, "memory.stat", m.statV2); err != nil {
		return err
	}

	if g.Path == "/" {
		m.Usage = m.RSS + m.Cache
		m.Limit, m.Swap, m.SwapLimit = r.machineMemory()
		m.SwapLimited = true
	} else {
		m.Usage = r.number(dir, "memory.current")
		m.Limit = r.limit(dir, "memory.max")
		m.Swap = r.number(dir, "memory.swap.current")
		m.SwapLimit, m.SwapLimited = r.swapLimitV2(dir)
	}

	m.WorkingSet = m.Usage - min(m.Usage, m.InactiveFile)
	m.OwnFaults = m.Faults
	m.OwnMajorFaults = m.MajorFaults
	return nil
}

// statV2 takes a line of memory.stat.
func (m *Memory) statV2(key []byte, n uint64) {
	switch string(key) {
	case "anon":
		m.RSS = n
	case "file":
		m.Cache = n
	case "file_mapped":
		m.MappedFile = n
	case "kernel":
		m.Kernel = n

	case "active_file":
		m.ActiveFile = n
	case "inactive_file":
		m.InactiveFile = n
	case "file_dirty":
		m.Dirty = n
	case "file_writeback":
		m.Writeback = n

	case "pgfault":
		m.Faults = n
	case "pgmajfault":
		m.MajorFaults = n
	case "pgscan":
		m.Scanned = n
	case "pgsteal":
		m.Stolen = n
	case "workingset_refault_file":
		m.RefaultedFile = n
	case "workingset_refault_anon":
		m.RefaultedAnon = n
	}
}

// swapLimitV2 returns the limit of swap, false without one, or without swap accounting.
func (r *reader) swapLimitV2(dir string) (uint64, bool) {
	b, err := r.read(dir, "memory.swap.max")
	if err != nil {
		return 0, false
	}
	n := parse(b)
	return n, n < unlimited
}

func (r *reader) limitsV2(dir string, g *Group) {
	g.CPU.Shares = sharesOf(r.number(dir, "cpu.weight"))
	if b, err := r.read(dir, "cpu.max"); err == nil {
		quota, period, _ := bytes.Cut(b, []byte(" "))
		if n := parse(quota); n < unlimited {
			g.CPU.Quota = n
		}

		g.CPU.Period = parse(period)
	}

	g.Memory.Peak = r.number(dir, "memory.peak")
	g.Memory.Reservation = r.limit(dir, "memory.min")
	g.Tasks = r.number(dir, "pids.current")
	g.TaskLimit = r.limit(dir, "pids.max")
}

// sharesOf converts a weight of v2 (1 to 10000) to shares of v1 (2 to 262144), as cAdvisor does.
func sharesOf(weight uint64) uint64 {
	if weight < 1 || weight > 10000 {
		return 0
	}
	return 2 + (weight-1)*262142/9999
}

func (r *reader) eventsV2(dir string, m *Memory) {
	// The root group has no such file.
	_ = r.keyed(dir, "memory.events", func(key []byte, n uint64) {
		switch string(key) {
		case "high":
			m.HighEvents = n
		case "max":
			m.LimitHits = n
		case "oom_kill":
			m.OOMKills = n
		}
	})
}

// maxDevices bounds the devices of one group.
const maxDevices = 256

// devicesV2 reads lines "MAJOR:MINOR KEY=NUMBER..." of io.stat.
func (r *reader) devicesV2(dir string) []Device {
	b, err := r.read(dir, "io.stat")
	if err != nil {
		return nil
	}

	var out []Device
	for line := range bytes.Lines(b) {
		number, rest, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		if !ok || len(out) == maxDevices {
			continue
		}

		d := r.device(number)
		for field := range bytes.SplitSeq(rest, []byte(" ")) {
			key, value, _ := bytes.Cut(field, []byte("="))
			d.take(string(key), parse(value))
		}

		out = append(out, d)
	}

	return out
}

// take takes a figure of a line of io.stat.
func (d *Device) take(key string, n uint64) {
	switch key {
	case "rbytes":
		d.ReadBytes = n
	case "wbytes":
		d.WriteBytes = n
	case "rios":
		d.Reads = n
	case "wios":
		d.Writes = n
	case "cost.usage", "cost.wait", "cost.indebt", "cost.indelay":
		if d.Cost == nil {
			d.Cost = &Cost{}
		}

		d.Cost.take(key, time.Duration(n)*time.Microsecond)
	}
}

func (c *Cost) take(key string, took time.Duration) {
	switch key {
	case "cost.usage":
		c.Usage = took
	case "cost.wait":
		c.Wait = took
	case "cost.indebt":
		c.InDebt = took
	case "cost.indelay":
		c.InDelay = took
	}
}
