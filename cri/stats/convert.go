package stats

import (
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/stats/meter"
	"github.com/trivet-node/trivet/internal/cgroup/usage"
)

// cpuUsage returns what a group used of processors in the terms of CRI.
func cpuUsage(s meter.Sample) *runtimeapi.CpuUsage {
	out := &runtimeapi.CpuUsage{
		Timestamp:            s.Time.UnixNano(),
		UsageCoreNanoSeconds: value(uint64(s.CPU)),
	}
	if s.NanoCores != nil {
		out.UsageNanoCores = value(*s.NanoCores)
	}
	if s.Stalls != nil {
		out.Psi = stalls(s.Stalls.CPU)
	}

	return out
}

func memoryUsage(s meter.Sample) *runtimeapi.MemoryUsage {
	out := &runtimeapi.MemoryUsage{
		Timestamp:       s.Time.UnixNano(),
		WorkingSetBytes: value(s.WorkingSet),
		UsageBytes:      value(s.Memory),
		RssBytes:        value(s.RSS),
		PageFaults:      value(s.PageFaults),
		MajorPageFaults: value(s.MajorPageFaults),
	}
	if s.MemoryLimit > s.WorkingSet {
		out.AvailableBytes = value(s.MemoryLimit - s.WorkingSet)
	}
	if s.Stalls != nil {
		out.Psi = stalls(s.Stalls.Memory)
	}

	return out
}

func swapUsage(s meter.Sample) *runtimeapi.SwapUsage {
	out := &runtimeapi.SwapUsage{Timestamp: s.Time.UnixNano(), SwapUsageBytes: value(s.Swap)}
	if s.SwapLimit != nil {
		out.SwapAvailableBytes = value(*s.SwapLimit - min(s.Swap, *s.SwapLimit))
	}
	return out
}

// ioUsage returns the pressure of input and output; nil where the kernel does not know it.
func ioUsage(s meter.Sample) *runtimeapi.IoUsage {
	if s.Stalls == nil {
		return nil
	}
	return &runtimeapi.IoUsage{Timestamp: s.Time.UnixNano(), Psi: stalls(s.Stalls.IO)}
}

func stalls(p usage.Pressure) *runtimeapi.PsiStats {
	return &runtimeapi.PsiStats{Full: stall(p.Full), Some: stall(p.Some)}
}

func stall(s usage.Stall) *runtimeapi.PsiData {
	return &runtimeapi.PsiData{
		Total:  uint64(s.Total),
		Avg10:  s.Avg10,
		Avg60:  s.Avg60,
		Avg300: s.Avg300,
	}
}

func value(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }
