package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
)

// Limits are what a group may use. A field of 0 is left as it is; -1 means unlimited.
type Limits struct {
	// CPUShares is on the scale of v1: 2 to 262144, and 1024 is one CPU's fair share. On v2 it is converted
	// to cpu.weight.
	CPUShares uint64
	// CPUQuota is in microseconds of CPU for each CPUPeriod.
	CPUQuota int64
	// CPUPeriod is in microseconds; 0 with a quota means DefaultPeriod.
	CPUPeriod uint64
	// Memory is in bytes.
	Memory int64
	// MemoryMin is what the kernel never reclaims of the group, MemoryLow what it reclaims last, in bytes;
	// nil is left as it is. MemoryHigh is from where on the group is slowed down. They are v2's only.
	MemoryMin  *int64
	MemoryLow  *int64
	MemoryHigh int64
	PIDs       int64
	// HugePages are bytes by the kernel's name of the page size ("2MB"). Sizes that the host does not have
	// are skipped.
	HugePages map[string]int64
}

// DefaultPeriod is the period of CPU quotas, in microseconds, where none is given.
const DefaultPeriod = 100_000

// Period returns the period of the quota in microseconds.
func (l Limits) Period() uint64 {
	if l.CPUPeriod == 0 {
		return DefaultPeriod
	}
	return l.CPUPeriod
}

// Apply writes the limits of an existing group.
func (h *Host) Apply(group string, l Limits) error {
	for _, s := range settings(l, h.V2) {
		dir := h.Dir(s.controller, group)
		if dir == "" {
			// The controller is not mounted on this host.
			continue
		}

		err := write(dir, s.file, s.value)
		if s.controller == "hugetlb" && errors.Is(err, fs.ErrNotExist) {
			// The host does not have the page size or, on v2, the controller.
			continue
		}

		if err != nil {
			return fmt.Errorf("limit cgroup %s: %w", filepath.Join("/", group), err)
		}
	}

	return nil
}

// setting is a value for a file of a controller.
type setting struct{ controller, file, value string }

// settings returns what limits are in the files of v1 or v2, in the order in which they are to be written.
func settings(l Limits, v2 bool) []setting {
	if v2 {
		return append(settingsV2(l), hugePages(l, ".max")...)
	}
	return append(settingsV1(l), hugePages(l, ".limit_in_bytes")...)
}

func settingsV1(l Limits) []setting {
	var out []setting
	if l.CPUShares != 0 {
		out = append(out, setting{"cpu", "cpu.shares", strconv.FormatUint(l.CPUShares, 10)})
	}

	if l.CPUQuota != 0 {
		out = append(out,
			setting{"cpu", "cpu.cfs_period_us", strconv.FormatUint(l.Period(), 10)},
			setting{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(l.CPUQuota, 10)})
	}

	if l.Memory != 0 {
		out = append(out, setting{"memory", "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)})
	}
	if l.PIDs != 0 {
		out = append(out, setting{"pids", "pids.max", orMax(l.PIDs)})
	}

	return out
}

func settingsV2(l Limits) []setting {
	var out []setting
	if l.CPUShares != 0 {
		out = append(out, setting{"cpu", "cpu.weight", strconv.FormatUint(Weight(l.CPUShares), 10)})
	}

	if l.CPUQuota != 0 {
		quota := orMax(l.CPUQuota) + " " + strconv.FormatUint(l.Period(), 10)
		out = append(out, setting{"cpu", "cpu.max", quota})
	}

	if l.Memory != 0 {
		out = append(out, setting{"memory", "memory.max", orMax(l.Memory)})
	}
	if l.MemoryMin != nil {
		out = append(out, setting{"memory", "memory.min", orMax(*l.MemoryMin)})
	}
	if l.MemoryLow != nil {
		out = append(out, setting{"memory", "memory.low", orMax(*l.MemoryLow)})
	}
	if l.MemoryHigh != 0 {
		out = append(out, setting{"memory", "memory.high", orMax(l.MemoryHigh)})
	}
	if l.PIDs != 0 {
		out = append(out, setting{"pids", "pids.max", orMax(l.PIDs)})
	}

	return out
}

// hugePages bounds the use of huge pages, and since Linux 5.7 their reservation.
func hugePages(l Limits, suffix string) []setting {
	var out []setting
	for size, limit := range l.HugePages {
		value := strconv.FormatInt(limit, 10)
		out = append(out,
			setting{"hugetlb", "hugetlb." + size + suffix, value},
			setting{"hugetlb", "hugetlb." + size + ".rsvd" + suffix, value})
	}
	return out
}

// orMax is a limit as the files of v2, and pids.max of both, have it.
func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}
