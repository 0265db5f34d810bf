package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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

// Above returns those of the limits that allow more than an existing group has now, so that applying them
// takes nothing from it. fs.ErrNotExist when the group is gone.
func (h *Host) Above(group string, l Limits) (Limits, error) {
	now := current{host: h, group: group}
	out := Limits{}
	if l.CPUShares != 0 && now.belowShares(l.CPUShares) {
		out.CPUShares = l.CPUShares
	}
	if l.CPUQuota != 0 && now.belowQuota(l) {
		out.CPUQuota = l.CPUQuota
		out.CPUPeriod = l.CPUPeriod
	}

	if l.Memory != 0 && now.below(l.Memory, "memory", "memory.limit_in_bytes", "memory.max") {
		out.Memory = l.Memory
	}
	if l.PIDs != 0 && now.below(l.PIDs, "pids", "pids.max", "pids.max") {
		out.PIDs = l.PIDs
	}

	if l.MemoryMin != nil && now.below(*l.MemoryMin, "memory", "", "memory.min") {
		out.MemoryMin = l.MemoryMin
	}
	if l.MemoryLow != nil && now.below(*l.MemoryLow, "memory", "", "memory.low") {
		out.MemoryLow = l.MemoryLow
	}
	if l.MemoryHigh != 0 && now.below(l.MemoryHigh, "memory", "", "memory.high") {
		out.MemoryHigh = l.MemoryHigh
	}

	for size, bytes := range l.HugePages {
		file := "hugetlb." + size
		if !now.below(bytes, "hugetlb", file+".limit_in_bytes", file+".max") {
			continue
		}
		if out.HugePages == nil {
			out.HugePages = map[string]int64{}
		}

		out.HugePages[size] = bytes
	}

	if now.err != nil {
		return Limits{}, fmt.Errorf("limits of cgroup %s: %w", filepath.Join("/", group), now.err)
	}

	return out, nil
}

// MemoryLimit returns how many bytes of memory a group may use now; -1: it has no limit. fs.ErrNotExist when
// the group is gone.
func (h *Host) MemoryLimit(group string) (int64, error) {
	now := current{host: h, group: group}
	limit := number(now.read("memory", "memory.limit_in_bytes", "memory.max"))
	return limit, now.err
}

// current reads the limits that a group has. After the first error it reads nothing more.
type current struct {
	host  *Host
	group string
	err   error
}

// read returns the content of a file in the directory of a controller, "max" where the host does not have
// one.
func (c *current) read(controller, v1, v2 string) string {
	file := v1
	if c.host.V2 {
		file = v2
	}

	dir := c.host.Dir(controller, c.group)
	if c.err != nil || dir == "" || file == "" {
		return "max"
	}

	text, err := contents(dir, file)
	if errors.Is(err, fs.ErrNotExist) {
		// It may be the controller that is not there, or the group.
		if _, gone := os.Stat(dir); gone == nil {
			return "max"
		}
	}

	c.err = err
	return strings.TrimSpace(text)
}

// below reports whether the limit in a file is less than want bytes or processes; -1 is unlimited.
func (c *current) below(want int64, controller, v1, v2 string) bool {
	has := number(c.read(controller, v1, v2))
	return has >= 0 && (want < 0 || want > has)
}

// belowQuota reports whether the group has a quota of less than that of l. Quotas are of their periods: 100
// ms of 200 ms are less than 60 ms of 100 ms.
func (c *current) belowQuota(l Limits) bool {
	text := c.read("cpu", "cpu.cfs_quota_us", "cpu.max")
	if !c.host.V2 {
		text += " " + c.read("cpu", "cpu.cfs_period_us", "")
	}

	quota, period, _ := strings.Cut(text, " ")
	has, of := number(quota), number(period)
	if has < 0 || of <= 0 || l.CPUQuota < 0 {
		return has >= 0
	}

	return float64(l.CPUQuota)/float64(l.Period()) > float64(has)/float64(of)
}

// belowShares reports whether the group has fewer shares of CPU.
func (c *current) belowShares(want uint64) bool {
	if c.host.V2 {
		want = Weight(want)
	}
	has := number(c.read("cpu", "cpu.shares", "cpu.weight"))
	return has >= 0 && want > uint64(has)
}

// v1Unlimited is less than what v1 shows for no limit, the largest number of whole pages.
const v1Unlimited = 1 << 62

// number returns what is in a file; -1 for "max" and whatever else means that there is no limit.
func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n >= v1Unlimited {
		return -1
	}
	return n
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
