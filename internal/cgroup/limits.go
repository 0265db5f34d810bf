package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
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
	// Memory is in bytes. Swap is of memory and swap together, and needs Memory; it is skipped where the host
	// does not count swap.
	Memory int64
	Swap   int64
	// MemoryMin is what the kernel never reclaims of the group, MemoryLow what it reclaims last, in bytes;
	// nil is left as it is. MemoryHigh is from where on the group is slowed down. They are v2's only.
	MemoryMin  *int64
	MemoryLow  *int64
	MemoryHigh int64
	PIDs       int64
	// HugePages are bytes by the kernel's name of the page size ("2MB"). Sizes that the host does not have
	// are skipped.
	HugePages map[string]int64
	// Files are further values by the names of v2's files, such as memory.oom.group. v1 has none.
	Files map[string]string
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

// Apply writes the limits of an existing group. After an error some may have been written.
func (h *Host) Apply(group string, l Limits) error {
	var refused []setting
	for _, s := range settings(l, h.V2) {
		err := h.apply(group, s)
		if errors.Is(err, unix.EINVAL) {
			refused = append(refused, s)
			continue
		}

		if err != nil {
			return fmt.Errorf("limit cgroup %s: %w", filepath.Join("/", group), err)
		}
	}

	// A limit may be refused because of another one that was the old one still: memory above that of memory
	// and swap, a quota above that of the parent in the old period.
	for _, s := range refused {
		if err := h.apply(group, s); err != nil {
			return fmt.Errorf("limit cgroup %s: %w", filepath.Join("/", group), err)
		}
	}

	return nil
}

// apply writes a setting, if the host has that controller.
func (h *Host) apply(group string, s setting) error {
	dir := h.Dir(s.controller, group)
	if dir == "" {
		return nil
	}

	err := write(dir, s.file, s.value)
	if s.optional() && errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	return err
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

// BoundsSwap reports whether the kernel can limit what groups swap out, by a group that exists: the root of
// v2 has no limits.
func (h *Host) BoundsSwap(group string) bool {
	file := swapV1
	if h.V2 {
		file = swapV2
	}

	dir := h.Dir("memory", group)
	if dir == "" {
		return false
	}

	_, err := os.Stat(filepath.Join(dir, file))
	return err == nil
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

// optional reports whether a host may not have the file: it lacks the page size, the controller on v2, or
// does not count swap.
func (s setting) optional() bool {
	return s.controller == "hugetlb" || s.file == swapV1 || s.file == swapV2
}

// The files of the limit of swap: v1's is of memory and swap together.
const (
	swapV1 = "memory.memsw.limit_in_bytes"
	swapV2 = "memory.swap.max"
)

// settings returns what limits are in the files of v1 or v2, in the order in which they are to be written.
func settings(l Limits, v2 bool) []setting {
	if v2 {
		return slices.Concat(settingsV2(l), hugePages(l, ".max"), files(l))
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
	if l.Swap != 0 {
		out = append(out, setting{"memory", swapV1, strconv.FormatInt(l.Swap, 10)})
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
	if l.Swap != 0 {
		out = append(out, setting{"memory", swapV2, orMax(swapAlone(l))})
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

// swapAlone returns the limit of swap without memory.
func swapAlone(l Limits) int64 {
	if l.Swap < 0 || l.Memory < 0 {
		return -1
	}
	return max(l.Swap-l.Memory, 0)
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

// files are in the directory of all controllers of v2.
func files(l Limits) []setting {
	var out []setting
	for _, file := range slices.Sorted(maps.Keys(l.Files)) {
		out = append(out, setting{"", file, l.Files[file]})
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
