package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"strconv"
)

// Limits are what a group may use. A zero field is left as it is; -1 means unlimited.
type Limits struct {
	CPUShares uint64 // v1 scale: 2..262144, 1024 = one core's fair share; converted to cpu.weight on v2
	CPUQuota  int64  // microseconds of CPU per CPUPeriod
	CPUPeriod uint64 // microseconds; 0 with a quota means 100,000
	Memory    int64  // bytes
	PIDs      int64
	// HugePages are bytes by the kernel's name of the page size ("2MB"). Sizes that the host has not are
	// passed over.
	HugePages map[string]int64
}

// Period is the period of the quota in microseconds.
func (l Limits) Period() uint64 {
	if l.CPUPeriod == 0 {
		return 100_000
	}
	return l.CPUPeriod
}

// Apply writes the limits of an existing group.
func (h *Host) Apply(group string, l Limits) error {
	for _, s := range h.settings(l) {
		dir := h.Dir(s.controller, group)
		if dir == "" {
			// the controller is not mounted on this host
			continue
		}

		err := write(dir, s.file, s.value)
		if s.controller == "hugetlb" && errors.Is(err, fs.ErrNotExist) {
			// a page size, or a whole controller of v2, that the host has not
			continue
		}

		if err != nil {
			return fmt.Errorf("limit cgroup %s: %w", filepath.Join("/", group), err)
		}
	}

	return nil
}

type setting struct{ controller, file, value string }

func (h *Host) settings(l Limits) []setting {
	var out []setting
	add := func(controller, v1, v2, value string) {
		file := v1
		if h.V2 {
			file = v2
		}

		out = append(out, setting{controller, file, value})
	}

	period := l.Period()
	if l.CPUShares != 0 {
		value := l.CPUShares
		if h.V2 {
			value = Weight(l.CPUShares)
		}

		add("cpu", "cpu.shares", "cpu.weight", strconv.FormatUint(value, 10))
	}

	switch {
	case l.CPUQuota == 0:
	case h.V2:
		add("cpu", "", "cpu.max", orMax(l.CPUQuota)+" "+strconv.FormatUint(period, 10))
	default:
		add("cpu", "cpu.cfs_period_us", "", strconv.FormatUint(period, 10))
		add("cpu", "cpu.cfs_quota_us", "", strconv.FormatInt(l.CPUQuota, 10))
	}

	if l.Memory != 0 {
		value := strconv.FormatInt(l.Memory, 10)
		if h.V2 {
			value = orMax(l.Memory)
		}

		add("memory", "memory.limit_in_bytes", "memory.max", value)
	}

	if l.PIDs != 0 {
		add("pids", "pids.max", "pids.max", orMax(l.PIDs))
	}

	for size, limit := range l.HugePages {
		file := "hugetlb." + size
		value := strconv.FormatInt(limit, 10)
		add("hugetlb", file+".limit_in_bytes", file+".max", value)

		// since Linux 5.7
		add("hugetlb", file+".rsvd.limit_in_bytes", file+".rsvd.max", value)
	}

	return out
}

func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// Weight converts v1 cpu.shares (2..262144) to v2 cpu.weight (1..10000) as OCI runtimes and kubelet do since
// 2025: by a curve through 2 -> 1, 1024 -> 100 and 262144 -> 10000, so that one CPU's shares are the kernel's
// default weight.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}
