package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is one reading of a group's counters. Amounts of memory are in bytes.
type Usage struct {
	Time            time.Time
	CPU             time.Duration // since the group was made
	Memory          uint64        // page cache included
	WorkingSet      uint64        // Memory less inactive page cache: what Kubernetes evicts by
	RSS             uint64        // anonymous memory
	MemoryLimit     uint64        // 0: none
	PageFaults      uint64
	MajorPageFaults uint64
	Swap            uint64
	PIDs            uint64
}

// Usage reads the counters of a group, its children included; fs.ErrNotExist when the group is gone.
func (h *Host) Usage(group string) (Usage, error) {
	u := Usage{Time: time.Now()}
	var err error
	if h.V2 {
		err = h.usageV2(h.Dir("", group), &u)
	} else {
		err = h.usageV1(group, &u)
	}

	if errors.Is(err, unix.ENODEV) {
		// The group was removed between the open of a file and the read.
		err = fs.ErrNotExist
	}

	if err != nil {
		return Usage{}, fmt.Errorf("read cgroup %s: %w", group, err)
	}

	return u, nil
}

// unlimitedV1 is the limit of a v1 group that has none, the largest multiple of a page, or a little less.
const unlimitedV1 = math.MaxInt64/4096*4096 - 4096

func (h *Host) usageV1(group string, u *Usage) error {
	memory := h.Dir("memory", group)
	ns, err := number(h.Dir("cpuacct", group), "cpuacct.usage")
	if err != nil {
		return err
	}

	u.CPU = time.Duration(ns)

	if u.Memory, err = number(memory, "memory.usage_in_bytes"); err != nil {
		return err
	}

	limit, err := number(memory, "memory.limit_in_bytes")
	if err != nil {
		return err
	}
	if limit < unlimitedV1 {
		u.MemoryLimit = limit
	}

	stat, err := keyed(memory, "memory.stat")
	if err != nil {
		return err
	}

	// The totals count the groups below as well, as v2 does by itself.
	u.RSS = stat["total_rss"]
	u.PageFaults = stat["total_pgfault"]
	u.MajorPageFaults = stat["total_pgmajfault"]
	u.Swap = stat["total_swap"]
	u.WorkingSet = u.Memory - min(u.Memory, stat["total_inactive_file"])

	// A machine with cgroup v1 may be without this controller.
	if dir := h.Dir("pids", group); dir != "" {
		u.PIDs, _ = number(dir, "pids.current")
	}

	return nil
}

func (h *Host) usageV2(dir string, u *Usage) error {
	cpu, err := keyed(dir, "cpu.stat")
	if err != nil {
		return err
	}

	u.CPU = time.Duration(cpu["usage_usec"]) * time.Microsecond

	if u.Memory, err = number(dir, "memory.current"); err != nil {
		return err
	}

	u.MemoryLimit, _ = number(dir, "memory.max")

	stat, err := keyed(dir, "memory.stat")
	if err != nil {
		return err
	}

	u.RSS = stat["anon"]
	u.PageFaults = stat["pgfault"]
	u.MajorPageFaults = stat["pgmajfault"]
	u.WorkingSet = u.Memory - min(u.Memory, stat["inactive_file"])

	// A kernel may be without these controllers.
	u.Swap, _ = number(dir, "memory.swap.current")
	u.PIDs, _ = number(dir, "pids.current")
	return nil
}

// crunGroup is where crun puts the processes of a container whose scope systemd made.
const crunGroup = "container"

// OOMKills returns how many processes of a group the OOM killer has killed. On v2 those of all groups below
// count as well, on v1 those of crun's.
func (h *Host) OOMKills(group string) (uint64, error) {
	if h.V2 {
		events, err := keyed(h.Dir("", group), "memory.events")
		return events["oom_kill"], err
	}

	dir := h.Dir("memory", group)
	if dir == "" {
		return 0, fmt.Errorf("OOM kills of cgroup %s: no memory controller: %w", group, errors.ErrUnsupported)
	}

	own, err := keyed(dir, "memory.oom_control")
	if err != nil {
		return 0, err
	}

	below, err := keyed(filepath.Join(dir, crunGroup), "memory.oom_control")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return 0, err
	}

	return own["oom_kill"] + below["oom_kill"], nil
}
