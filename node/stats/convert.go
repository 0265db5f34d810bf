package stats

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/usage"
)

func cpuOf(g *usage.Group) *statsapi.CPUStats {
	if g == nil {
		return nil
	}

	out := &statsapi.CPUStats{
		Time:                 metav1.NewTime(g.Time),
		UsageCoreNanoSeconds: new(uint64(g.CPU.Usage)),
		UsageNanoCores:       new(g.CPU.NanoCores),
	}
	if g.Pressure != nil {
		out.PSI = psiOf(g.Pressure.CPU)
	}

	return out
}

func memoryOf(g *usage.Group) *statsapi.MemoryStats {
	if g == nil {
		return nil
	}

	out := &statsapi.MemoryStats{
		Time:            metav1.NewTime(g.Time),
		UsageBytes:      new(g.Memory.Usage),
		WorkingSetBytes: new(g.Memory.WorkingSet),
		RSSBytes:        new(g.Memory.RSS),
		PageFaults:      new(g.Memory.Faults),
		MajorPageFaults: new(g.Memory.MajorFaults),
	}
	if available, limited := g.Memory.Available(); limited {
		out.AvailableBytes = new(available)
	}
	if g.Pressure != nil {
		out.PSI = psiOf(g.Pressure.Memory)
	}

	return out
}

func swapOf(g *usage.Group) *statsapi.SwapStats {
	if g == nil {
		return nil
	}

	m := g.Memory
	out := &statsapi.SwapStats{
		Time:           metav1.NewTime(g.Time),
		SwapUsageBytes: new(m.Swap),
	}
	if m.SwapLimited {
		out.SwapAvailableBytes = new(m.SwapLimit - min(m.SwapLimit, m.Swap))
	}

	return out
}

// ioOf returns how long was waited for disks, nil where the kernel does not tell.
func ioOf(g *usage.Group) *statsapi.IOStats {
	if g == nil || g.Pressure == nil {
		return nil
	}
	return &statsapi.IOStats{
		Time: metav1.NewTime(g.Time),
		PSI:  psiOf(g.Pressure.IO),
	}
}

// psiOf converts to the API's unit of totals, microseconds.
func psiOf(s usage.Stalls) *statsapi.PSIStats {
	return &statsapi.PSIStats{Some: stallOf(s.Some), Full: stallOf(s.Full)}
}

func stallOf(s usage.Stall) statsapi.PSIData {
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
