package usage

import (
	"bytes"
	"time"
)

// readV1 reads a group in the hierarchies of cgroup v1. The error is of a group that is gone.
func (r *reader) readV1(g *Group, depth Depth) error {
	if err := r.cpuV1(g, depth); err != nil {
		return err
	}
	if err := r.memoryV1(g, depth); err != nil {
		return err
	}

	if depth == CPUAndMemory {
		return nil
	}

	if pids := r.groups.Dir("pids", g.Path); pids != "" {
		g.Tasks = r.number(pids, "pids.current")
		g.TaskLimit = r.limit(pids, "pids.max")
	}

	if blkio := r.groups.Dir("blkio", g.Path); blkio != "" {
		g.Devices = r.devicesV1(blkio)
	}

	return nil
}

func (r *reader) cpuV1(g *Group, depth Depth) error {
	acct := r.groups.Dir("cpuacct", g.Path)
	b, err := r.read(acct, "cpuacct.usage")
	if err != nil {
		return err
	}

	c := &g.CPU
	c.Usage = time.Duration(parse(b))
	if depth == CPUAndMemory {
		return nil
	}

	c.User = time.Duration(r.number(acct, "cpuacct.usage_user"))
	c.System = time.Duration(r.number(acct, "cpuacct.usage_sys"))

	cpu := r.groups.Dir("cpu", g.Path)
	c.Shares = r.number(cpu, "cpu.shares")
	c.Period = r.number(cpu, "cpu.cfs_period_us")
	// A quota of -1 is none, and not a number for parse.
	c.Quota = r.number(cpu, "cpu.cfs_quota_us")

	// The root group has no such file.
	_ = r.keyed(cpu, "cpu.stat", func(key []byte, n uint64) {
		switch string(key) {
		case "nr_periods":
			c.Periods = n
		case "nr_throttled":
			c.ThrottledPeriods = n
		case "throttled_time":
			c.Throttled = time.Duration(n)
		case "nr_bursts":
			c.BurstPeriods = n
		case "burst_time":
			c.Burst = time.Duration(n)
		}
	})

	return nil
}

func (r *reader) memoryV1(g *Group, depth Depth) error {
	dir := r.groups.Dir("memory", g.Path)
	b, err := r.read(dir, "memory.usage_in_bytes")
	if err != nil {
		return err
	}

	m := &g.Memory
	m.Usage = parse(b)
	if err := r.keyed(dir, "memory.stat", m.statV1); err != nil {
		return err
	}

	m.WorkingSet = m.Usage - min(m.Usage, m.InactiveFile)
	m.Limit = r.limit(dir, "memory.limit_in_bytes")
	if g.Path == "/" {
		m.Limit, m.Swap, m.SwapLimit = r.machineMemory()
		m.SwapLimited = true
	} else if both := r.limit(dir, "memory.memsw.limit_in_bytes"); both > 0 && m.Limit > 0 {
		// The limit of this file is of memory and swap together.
		m.SwapLimit = both - min(both, m.Limit)
		m.SwapLimited = true
	}

	if depth == CPUAndMemory {
		return nil
	}

	m.Peak = r.number(dir, "memory.max_usage_in_bytes")
	m.LimitHits = r.number(dir, "memory.failcnt")
	m.Kernel = r.number(dir, "memory.kmem.usage_in_bytes")
	m.Reservation = r.limit(dir, "memory.soft_limit_in_bytes")
	_ = r.keyed(dir, "memory.oom_control", func(key []byte, n uint64) {
		if string(key) == "oom_kill" {
			m.OOMKills = n
		}
	})

	return nil
}

// statV1 takes a line of memory.stat. Totals count the groups below as well, as v2 does by itself.
func (m *Memory) statV1(key []byte, n uint64) {
	switch string(key) {
	case "total_rss":
		m.RSS = n
	case "total_cache":
		m.Cache = n
	case "total_mapped_file":
		m.MappedFile = n
	case "total_swap":
		m.Swap = n

	case "total_active_file":
		m.ActiveFile = n
	case "total_inactive_file":
		m.InactiveFile = n
	case "total_dirty":
		m.Dirty = n
	case "total_writeback":
		m.Writeback = n

	case "pgfault":
		m.OwnFaults = n
	case "pgmajfault":
		m.OwnMajorFaults = n
	case "total_pgfault":
		m.Faults = n
	case "total_pgmajfault":
		m.MajorFaults = n
	case "total_workingset_refault_file":
		m.RefaultedFile = n
	case "total_workingset_refault_anon":
		m.RefaultedAnon = n
	}
}

// devicesV1 reads lines "MAJOR:MINOR OPERATION NUMBER" of the throttling policy, which counts whatever the
// scheduler of the disk is.
func (r *reader) devicesV1(dir string) []Device {
	var out []Device
	for _, file := range []string{
		"blkio.throttle.io_service_bytes_recursive",
		"blkio.throttle.io_serviced_recursive",
	} {
		b, err := r.read(dir, file)
		if err != nil {
			continue
		}

		for line := range bytes.Lines(b) {
			if fields := bytes.Fields(line); len(fields) == 3 {
				out = r.addV1(out, file, fields)
			}
		}
	}

	return out
}

// addV1 adds a line to the device that it is of.
func (r *reader) addV1(all []Device, file string, fields [][]byte) []Device {
	d := r.device(fields[0])
	at := -1
	for i := range all {
		if all[i].Major == d.Major && all[i].Minor == d.Minor {
			at = i
		}
	}

	if at < 0 {
		if len(all) == maxDevices {
			return all
		}

		all = append(all, d)
		at = len(all) - 1
	}

	n := parse(fields[2])
	operations := file == "blkio.throttle.io_serviced_recursive"
	switch string(fields[1]) {
	case "Read":
		if operations {
			all[at].Reads = n
		} else {
			all[at].ReadBytes = n
		}

	case "Write":
		if operations {
			all[at].Writes = n
		} else {
			all[at].WriteBytes = n
		}
	}

	return all
}
