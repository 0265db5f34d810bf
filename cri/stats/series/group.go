package series

import (
	"strconv"
	"time"

	"github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/internal/procfs"
)

// group adds what a control group uses. quota is its CPU quota; without one there is nothing to be held back
// by.
func (s *Series) group(b *builder, r *usage.Reading, quota int64) {
	b.labeled(cpuUsage, b.with("total"), seconds(r.CPU))
	b.add(cpuUser, seconds(r.User))
	b.add(cpuSystem, seconds(r.System))
	if quota > 0 {
		b.add(cpuPeriods, r.Throttling.Periods)
		b.add(cpuThrottled, r.Throttling.Throttled)
		b.add(cpuThrottledTime, seconds(r.Throttling.ThrottledTime))
		b.add(cpuBursts, r.Throttling.Bursts)
		b.add(cpuBurstTime, seconds(r.Throttling.BurstTime))
	}

	memory(b, r)
	if r.V2 != nil {
		memoryV2(b, r)
	}
	if r.Stalls != nil {
		pressure(b, r.Stalls)
	}

	b.add(threads, r.PIDs)
	b.add(threadsMax, r.PIDLimit)
	for i := range r.IO {
		s.device(b, &r.IO[i])
	}

	for _, h := range r.HugePages {
		labels := b.with(h.Size)
		b.labeled(hugeUsage, labels, h.Usage)
		b.labeled(hugeHits, labels, h.LimitHits)
		if r.V2 == nil {
			b.labeled(hugePeak, labels, h.Peak)
		}
	}
}

func memory(b *builder, r *usage.Reading) {
	b.add(memoryUsage, r.Memory)
	b.add(memoryWorkingSet, r.WorkingSet)
	b.add(memoryRSS, r.RSS)
	b.add(memoryCache, r.Cache)
	b.add(memoryMapped, r.MappedFile)
	b.add(memorySwap, r.Swap)
	b.add(memoryPeak, r.MemoryPeak)
	b.add(memoryKernel, r.Kernel)
	b.add(memoryHits, r.LimitHits)
	b.add(memoryActive, r.ActiveFile)
	b.add(memoryInactive, r.InactiveFile)
	b.add(memoryDirty, r.Dirty)
	b.add(memoryWriteback, r.Writeback)
	b.add(memoryRefaultsFile, r.RefaultsFile)
	b.add(memoryRefaultsAnon, r.RefaultsAnon)
	b.add(oomEvents, r.OOMKills)

	b.labeled(memoryFailures, b.with("pgfault", "container"), r.OwnPageFaults)
	b.labeled(memoryFailures, b.with("pgmajfault", "container"), r.OwnMajorPageFaults)
	b.labeled(memoryFailures, b.with("pgfault", "hierarchy"), r.PageFaults)
	b.labeled(memoryFailures, b.with("pgmajfault", "hierarchy"), r.MajorPageFaults)
}

func memoryV2(b *builder, r *usage.Reading) {
	b.add(memoryHigh, r.V2.HighEvents)
	b.add(memoryMax, r.LimitHits)
	b.add(memoryScanned, r.V2.PagesScanned)
	b.add(memoryReclaimed, r.V2.PagesReclaimed)
}

func pressure(b *builder, p *usage.Stalls) {
	b.add(pressureCPUStalled, seconds(p.CPU.Full.Total))
	b.add(pressureCPUWaiting, seconds(p.CPU.Some.Total))
	b.add(pressureMemoryStalled, seconds(p.Memory.Full.Total))
	b.add(pressureMemoryWaiting, seconds(p.Memory.Some.Total))
	b.add(pressureIOStalled, seconds(p.IO.Full.Total))
	b.add(pressureIOWaiting, seconds(p.IO.Some.Total))
}

// device adds the input and output of a block device.
func (s *Series) device(b *builder, d *usage.Device) {
	name := s.devices.name(d.Major, d.Minor)
	labels := b.with(name)
	b.labeled(fsReadBytes, labels, d.Bytes[usage.Read])
	b.labeled(fsReads, labels, d.Requests[usage.Read])
	b.labeled(fsWriteBytes, labels, d.Bytes[usage.Write])
	b.labeled(fsWrites, labels, d.Requests[usage.Write])

	major := strconv.FormatUint(uint64(d.Major), 10)
	minor := strconv.FormatUint(uint64(d.Minor), 10)
	for op, bytes := range d.Bytes {
		operation := usage.Operation(op)
		if bytes == 0 && operation != usage.Read && operation != usage.Write {
			continue
		}

		b.labeled(blkioUsage, b.with(name, major, minor, operation.String()), bytes)
	}
}

// processes adds what the processes of a container have open.
func (s *Series) processes(b *builder, group string, init int) {
	listed, err := s.cfg.Meter.Processes(group)
	if err != nil {
		return
	}

	b.add(processes, uint64(listed.Count))
	if listed.Count == len(listed.PIDs) {
		open := procfs.Count(listed.PIDs)
		if !open.Unknown {
			b.add(descriptors, open.Descriptors)
		}
		if !open.Unknown && !open.SocketsUnknown {
			b.add(sockets, open.Sockets)
		}
	}

	if init <= 0 {
		return
	}
	if limit, err := procfs.OpenFilesLimit(init); err == nil {
		b.labeled(ulimits, b.with("max_open_files"), limit)
	}
}

// files adds the size of the writable layer, and of the file system that it is on.
func (s *Series) files(b *builder, id string, cpu time.Duration) {
	fs, err := s.devices.fileSystem()
	if err != nil {
		return
	}

	labels := b.with(fs.device)
	b.labeled(fsLimit, labels, fs.bytes)
	b.labeled(fsInodes, labels, fs.inodes)
	b.labeled(fsInodesFree, labels, fs.inodesFree)

	if written := s.cfg.Written(id, int64(cpu)); !written.Time.IsZero() {
		b.at = written.Time.UnixNano()
		b.labeled(fsUsage, labels, written.Bytes)
	}
}

func seconds(d time.Duration) uint64 { return uint64(max(d, 0) / time.Second) }
