package usage

import "time"

// unified reads a group of cgroup v2.
func (p *pass) unified() {
	out := p.out
	p.unifiedCPU(p.need(cpuStatV2))

	// The root group has no such file.
	out.Memory = number(p.want(memoryCurrent))
	out.MemoryLimit = number(p.want(memoryMax))
	p.unifiedMemory(p.need(memoryStatV2))
	out.WorkingSet = out.Memory - min(out.Memory, out.InactiveFile)

	// A kernel may be without these controllers.
	out.Swap = number(p.want(memorySwap))
	out.SwapLimit = least(bound(p.want(memorySwapMax)), bound(p.want(memorySwapMaxBelow)))
	out.PIDs = number(p.want(pidsCurrentV2))
	p.stalls()

	if out.Detail != Full || p.err != nil {
		return
	}

	out.MemoryPeak = number(p.want(memoryPeakV2))
	p.unifiedEvents(p.want(memoryEvents))
	out.PIDLimit = number(p.want(pidsMaxV2))
	out.IO = ioOf(p.want(ioStat))
	for _, size := range p.reader.group.PageSizes {
		p.unifiedHugePages(size)
	}
}

func (p *pass) unifiedCPU(text []byte) {
	out := p.out
	for key, value := range lines(text) {
		n := number(value)
		switch string(key) {
		case "usage_usec":
			out.CPU = microseconds(n)
		case "user_usec":
			out.User = microseconds(n)
		case "system_usec":
			out.System = microseconds(n)
		case "nr_periods":
			out.Throttling.Periods = n
		case "nr_throttled":
			out.Throttling.Throttled = n
		case "throttled_usec":
			out.Throttling.ThrottledTime = microseconds(n)
		case "nr_bursts":
			out.Throttling.Bursts = n
		case "burst_usec":
			out.Throttling.BurstTime = microseconds(n)
		}
	}
}

func microseconds(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

func (p *pass) unifiedMemory(text []byte) {
	out := p.out
	out.V2 = &UnifiedMemory{}
	for key, value := range lines(text) {
		n := number(value)
		switch string(key) {
		case "anon":
			out.RSS = n
		case "file":
			out.Cache = n
		case "kernel":
			out.Kernel = n

		case "file_mapped":
			out.MappedFile = n
		case "file_dirty":
			out.Dirty = n
		case "file_writeback":
			out.Writeback = n

		case "inactive_file":
			out.InactiveFile = n
		case "active_file":
			out.ActiveFile = n

		case "pgfault":
			out.PageFaults = n
			out.OwnPageFaults = n
		case "pgmajfault":
			out.MajorPageFaults = n
			out.OwnMajorPageFaults = n

		case "pgscan":
			out.V2.PagesScanned = n
		case "pgsteal":
			out.V2.PagesReclaimed = n
		case "workingset_refault_file":
			out.RefaultsFile = n
		case "workingset_refault_anon":
			out.RefaultsAnon = n
		}
	}
}

func (p *pass) unifiedEvents(text []byte) {
	for key, value := range lines(text) {
		n := number(value)
		switch string(key) {
		case "high":
			p.out.V2.HighEvents = n
		case "max":
			p.out.LimitHits = n
		case "oom_kill":
			p.out.OOMKills = n
		}
	}
}

// stalls reads the pressure of the group. A kernel may be without it, or have it turned off.
func (p *pass) stalls() {
	var all Stalls
	found := pressureOf(p.want(cpuPressure), &all.CPU)
	found = pressureOf(p.want(memoryPressure), &all.Memory) || found
	found = pressureOf(p.want(ioPressure), &all.IO) || found
	if found {
		p.out.Stalls = &all
	}
}

// pressureOf takes the lines "some|full avg10=N avg60=N avg300=N total=N", where total is in microseconds.
func pressureOf(text []byte, out *Pressure) bool {
	found := false
	for key, rest := range lines(text) {
		var stall *Stall
		switch string(key) {
		case "some":
			stall = &out.Some
		case "full":
			stall = &out.Full
		default:
			continue
		}

		found = true
		for name, value := range pairs(rest) {
			switch string(name) {
			case "avg10":
				stall.Avg10 = fraction(value)
			case "avg60":
				stall.Avg60 = fraction(value)
			case "avg300":
				stall.Avg300 = fraction(value)
			case "total":
				stall.Total = microseconds(number(value))
			}
		}
	}

	return found
}

// ioOf takes the lines "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N dbytes=N dios=N" of io.stat.
func ioOf(text []byte) []Device {
	var devices []Device
	for key, rest := range lines(text) {
		major, minor, ok := deviceNumber(key)
		if !ok {
			continue
		}

		device := Device{Major: major, Minor: minor}
		for name, value := range pairs(rest) {
			n := number(value)
			switch string(name) {
			case "rbytes":
				device.Bytes[Read] = n
			case "wbytes":
				device.Bytes[Write] = n
			case "dbytes":
				device.Bytes[Discard] = n
			case "rios":
				device.Requests[Read] = n
			case "wios":
				device.Requests[Write] = n
			case "dios":
				device.Requests[Discard] = n
			default:
				device.charge(string(name), microseconds(n))
			}
		}

		devices = append(devices, device)
	}

	return devices
}

// charge takes a figure of the controller io.cost; others are ignored.
func (d *Device) charge(name string, took time.Duration) {
	cost := d.Cost
	if cost == nil {
		cost = &Cost{}
	}

	switch name {
	case "cost.usage":
		cost.Usage = took
	case "cost.wait":
		cost.Wait = took
	case "cost.indebt":
		cost.InDebt = took
	case "cost.indelay":
		cost.InDelay = took
	default:
		return
	}

	d.Cost = cost
}

func (p *pass) unifiedHugePages(size string) {
	usage := p.hugePageFile("hugetlb." + size + ".current")
	if len(usage) == 0 {
		return
	}

	pages := HugePages{Size: size, Usage: number(usage)}
	pages.LimitHits = valueOf(p.hugePageFile("hugetlb."+size+".events"), "max")
	p.out.HugePages = append(p.out.HugePages, pages)
}
