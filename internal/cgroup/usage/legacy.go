package usage

import (
	"math"
	"time"
)

// unlimited is the limit of a v1 group that has none, the largest multiple of a page, or a little less.
const unlimited = math.MaxInt64/4096*4096 - 4096

// tick is the unit of cpuacct.stat (USER_HZ), the same on all machines.
const tick = 10 * time.Millisecond

// legacy reads a group of cgroup v1.
func (p *pass) legacy() {
	out := p.out
	out.CPU = time.Duration(number(p.need(cpuacctUsage)))
	out.Memory = number(p.need(memoryUsage))
	out.MemoryLimit = limited(number(p.need(memoryLimit)))
	p.legacyMemory(p.need(memoryStatV1))
	out.WorkingSet = out.Memory - min(out.Memory, out.InactiveFile)

	// A machine with cgroup v1 may be without this controller.
	out.PIDs = number(p.want(pidsCurrentV1))

	if out.Detail != Full || p.err != nil {
		return
	}

	stat := p.want(cpuacctStat)
	out.User = time.Duration(valueOf(stat, "user")) * tick
	out.System = time.Duration(valueOf(stat, "system")) * tick
	p.legacyThrottling(p.want(cpuStatV1))
	out.MemoryPeak = number(p.want(memoryPeakV1))
	out.LimitHits = number(p.want(memoryHits))
	out.Kernel = number(p.want(memoryKernel))
	out.OOMKills = valueOf(p.want(memoryOOM), "oom_kill")
	out.PIDLimit = number(p.want(pidsMaxV1))

	out.IO = blkioOf(out.IO, p.want(blkioBytes), (*Device).bytes)
	out.IO = blkioOf(out.IO, p.want(blkioRequests), (*Device).requests)
	for _, size := range p.reader.group.PageSizes {
		p.legacyHugePages(size)
	}
}

// legacyMemory takes what is in memory.stat. The totals count the groups below as well, as v2 does by itself.
func (p *pass) legacyMemory(text []byte) {
	out := p.out
	var limit, withSwap uint64
	for key, value := range lines(text) {
		n := number(value)
		switch string(key) {
		case "pgfault":
			out.OwnPageFaults = n
		case "pgmajfault":
			out.OwnMajorPageFaults = n
		case "hierarchical_memory_limit":
			limit = n
		case "hierarchical_memsw_limit":
			withSwap = n

		case "total_cache":
			out.Cache = n
		case "total_rss":
			out.RSS = n

		case "total_mapped_file":
			out.MappedFile = n
		case "total_dirty":
			out.Dirty = n
		case "total_writeback":
			out.Writeback = n

		case "total_workingset_refault_anon":
			out.RefaultsAnon = n
		case "total_workingset_refault_file":
			out.RefaultsFile = n
		case "total_swap":
			out.Swap = n
		case "total_pgfault":
			out.PageFaults = n
		case "total_pgmajfault":
			out.MajorPageFaults = n

		case "total_inactive_file":
			out.InactiveFile = n
		case "total_active_file":
			out.ActiveFile = n
		}
	}

	// The limit of swap is that of memory and swap together, less that of memory.
	if limited(withSwap) > 0 && limited(limit) > 0 {
		swap := withSwap - min(withSwap, limit)
		out.SwapLimit = &swap
	}
}

// limited returns a limit of v1, 0 for none.
func limited(limit uint64) uint64 {
	if limit >= unlimited {
		return 0
	}
	return limit
}

func (p *pass) legacyThrottling(text []byte) {
	t := &p.out.Throttling
	for key, value := range lines(text) {
		n := number(value)
		switch string(key) {
		case "nr_periods":
			t.Periods = n
		case "nr_throttled":
			t.Throttled = n
		case "throttled_time":
			t.ThrottledTime = time.Duration(n)
		case "nr_bursts":
			t.Bursts = n
		case "burst_time":
			t.BurstTime = time.Duration(n)
		}
	}
}

// blkioOf takes the lines "MAJOR:MINOR OPERATION NUMBER" of a file of the blkio controller.
func blkioOf(devices []Device, text []byte, counters func(*Device) *[operations]uint64) []Device {
	for key, rest := range lines(text) {
		major, minor, ok := deviceNumber(key)
		name, value, _ := cut(rest, ' ')
		op, known := operation(name)
		if !ok || !known {
			continue
		}

		var device *Device
		devices, device = deviceOf(devices, major, minor)
		counters(device)[op] = number(value)
	}

	return devices
}

func (d *Device) bytes() *[operations]uint64    { return &d.Bytes }
func (d *Device) requests() *[operations]uint64 { return &d.Requests }

func (p *pass) legacyHugePages(size string) {
	prefix := "hugetlb." + size
	usage := p.hugePageFile(prefix + ".usage_in_bytes")
	if len(usage) == 0 {
		return
	}

	pages := HugePages{Size: size, Usage: number(usage)}
	pages.Peak = number(p.hugePageFile(prefix + ".max_usage_in_bytes"))
	pages.LimitHits = number(p.hugePageFile(prefix + ".failcnt"))
	p.out.HugePages = append(p.out.HugePages, pages)
}
