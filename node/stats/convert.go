package stats

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/usage"
)

func cpuOf(g *usage.Group) *statsapi.CPUStats {
	if g == nil {
		return nil
	}

	out := &statsapi.CPUStats{
		Time:                 metav1.NewTime(g.Time),
		UsageCoreNanoSeconds: new(uint64(g.CPU)),
		UsageNanoCores:       new(g.NanoCores),
	}
	if g.Stalls != nil {
		out.PSI = psiOf(g.Stalls.CPU)
	}

	return out
}

func memoryOf(g *usage.Group) *statsapi.MemoryStats {
	if g == nil {
		return nil
	}

	out := &statsapi.MemoryStats{
		Time:            metav1.NewTime(g.Time),
		UsageBytes:      new(g.Memory),
		WorkingSetBytes: new(g.WorkingSet),
		RSSBytes:        new(g.RSS),
		PageFaults:      new(g.PageFaults),
		MajorPageFaults: new(g.MajorPageFaults),
	}
	if available, limited := g.Available(); limited {
		out.AvailableBytes = new(available)
	}
	if g.Stalls != nil {
		out.PSI = psiOf(g.Stalls.Memory)
	}

	return out
}

func swapOf(g *usage.Group) *statsapi.SwapStats {
	if g == nil {
		return nil
	}

	out := &statsapi.SwapStats{
		Time:           metav1.NewTime(g.Time),
		SwapUsageBytes: new(g.Swap),
	}
	if limit := g.SwapLimit; limit != nil {
		out.SwapAvailableBytes = new(*limit - min(*limit, g.Swap))
	}

	return out
}

// ioOf returns how long was waited for disks, nil where the kernel does not tell.
func ioOf(g *usage.Group) *statsapi.IOStats {
	if g == nil || g.Stalls == nil {
		return nil
	}
	return &statsapi.IOStats{
		Time: metav1.NewTime(g.Time),
		PSI:  psiOf(g.Stalls.IO),
	}
}

// psiOf converts to the API's unit of totals, microseconds.
func psiOf(s counters.Pressure) *statsapi.PSIStats {
	return &statsapi.PSIStats{Some: stallOf(s.Some), Full: stallOf(s.Full)}
}

func stallOf(s counters.Stall) statsapi.PSIData {
	return statsapi.PSIData{
		Total:  uint64(s.Total / time.Microsecond),
		Avg10:  s.Avg10,
		Avg60:  s.Avg60,
		Avg300: s.Avg300,
	}
}

// defaultInterface is the one whose figures are those of the pod or node as a whole, kubelet's.
const defaultInterface = "eth0"

// networkOf lists the default interface once more among all of them, as kubelet does.
func networkOf(interfaces []usage.Interface, at time.Time) *statsapi.NetworkStats {
	if len(interfaces) == 0 {
		return nil
	}

	out := &statsapi.NetworkStats{Time: metav1.NewTime(at)}
	for _, i := range interfaces {
		one := statsapi.InterfaceStats{
			Name:     i.Name,
			RxBytes:  new(i.Received.Bytes),
			RxErrors: new(i.Received.Errors),
			TxBytes:  new(i.Sent.Bytes),
			TxErrors: new(i.Sent.Errors),
		}
		if i.Name == defaultInterface {
			out.InterfaceStats = one
		}

		out.Interfaces = append(out.Interfaces, one)
	}

	return out
}
