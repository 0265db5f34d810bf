package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// daemons are a node's agent, its runtime with what that keeps for containers, and the driver of volumes,
// which the agent asks for their use.
var daemons = []string{
	"trivet-node", "trivet-cri", "trivet-monitor", "trivet-csi", "kubelet", "containerd",
	"containerd-shim-runc-v2",
}

// Daemons returns the PIDs of those of a node's processes that do the work of agent and runtime.
func Daemons(processes map[string][]int) []int {
	var pids []int
	for program, some := range processes {
		if slices.Contains(daemons, program) {
			pids = append(pids, some...)
		}
	}
	return pids
}

// Clock is the processor time that processes have used so far. It reads their clocks
// (clock_getcpuclockid(3)), which count nanoseconds where /proc counts hundredths of a second; one that has
// ended counts nothing.
func Clock(pids []int) time.Duration {
	const schedulersCount = 2
	var sum time.Duration
	for _, pid := range pids {
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|schedulersCount), &ts); err == nil {
			sum += time.Duration(ts.Nano())
		}
	}
	return sum
}

// CPUOf is the processor time that processes have used so far, in clock ticks (proc(5): utime and stime, of
// which 100 are a second).
func CPUOf(pids []int) int {
	ticks := 0
	for _, pid := range pids {
		ticks += sumOfStat(pid, 11, 12)
	}
	return ticks
}

// ChildrenOf is the same of the children that they have waited for (cutime and cstime): programs such as an
// OCI runtime.
func ChildrenOf(pids []int) int {
	ticks := 0
	for _, pid := range pids {
		ticks += sumOfStat(pid, 13, 14)
	}
	return ticks
}

// sumOfStat adds two fields of /proc/PID/stat, counted from the one behind the name; zero for a process that
// has ended.
func sumOfStat(pid, first, second int) int {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))

	// The name before it may have spaces.
	_, rest, ok := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) <= second {
		return 0
	}

	a, _ := strconv.Atoi(fields[first])
	b, _ := strconv.Atoi(fields[second])
	return a + b
}
