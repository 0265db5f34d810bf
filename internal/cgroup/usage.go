package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is one reading of a group's counters. Limits of 0 mean unlimited.
type Usage struct {
	Time            time.Time
	CPU             time.Duration // since the group was made
	Memory          uint64        // bytes, page cache included
	WorkingSet      uint64        // Memory less inactive page cache: what Kubernetes evicts by
	RSS             uint64        // anonymous memory, bytes
	MemoryLimit     uint64
	PageFaults      uint64
	MajorPageFaults uint64
	Swap            uint64
	PIDs            uint64
}

// Usage reads the counters of a group, its children included. fs.ErrNotExist when the group is gone.
func (h *Host) Usage(group string) (Usage, error) {
	u := Usage{Time: time.Now()}
	var err error
	if h.V2 {
		err = h.usageV2(filepath.Join(root, group), &u)
	} else {
		err = h.usageV1(group, &u)
	}
	if errors.Is(err, unix.ENODEV) { // it went between the opening of a file and the reading
		err = fs.ErrNotExist
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read cgroup %s: %w", group, err)
	}
	return u, nil
}

func (h *Host) usageV1(group string, u *Usage) error {
	mem := h.Dir("memory", group)
	ns, err := number(h.Dir("cpuacct", group), "cpuacct.usage")
	if err != nil {
		return err
	}
	u.CPU = time.Duration(ns)
	if u.Memory, err = number(mem, "memory.usage_in_bytes"); err != nil {
		return err
	}
	limit, err := number(mem, "memory.limit_in_bytes")
	if err != nil {
		return err
	}
	if limit < math.MaxInt64/4096*4096-4096 { // "unlimited" is the largest page multiple
		u.MemoryLimit = limit
	}
	stat, err := keyed(mem, "memory.stat")
	if err != nil {
		return err
	}
	u.RSS, u.PageFaults, u.MajorPageFaults, u.Swap = stat["total_rss"], stat["total_pgfault"], stat["total_pgmajfault"], stat["total_swap"]
	u.WorkingSet = u.Memory - min(u.Memory, stat["total_inactive_file"])
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
	u.RSS, u.PageFaults, u.MajorPageFaults = stat["anon"], stat["pgfault"], stat["pgmajfault"]
	u.WorkingSet = u.Memory - min(u.Memory, stat["inactive_file"])
	u.Swap, _ = number(dir, "memory.swap.current")
	u.PIDs, _ = number(dir, "pids.current")
	return nil
}

// crunGroup is where crun puts the processes of a container whose scope systemd made.
const crunGroup = "container"

// OOMKills is how many processes of the group the OOM killer has killed. On v2 those of all groups below
// count, too.
func (h *Host) OOMKills(group string) (uint64, error) {
	if h.V2 {
		events, err := keyed(filepath.Join(root, group), "memory.events")
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

// number reads a file of one number; "max" is 0.
func number(dir, file string) (uint64, error) {
	if dir == "" {
		return 0, fmt.Errorf("%s: controller is not mounted: %w", file, errors.ErrUnsupported)
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0, err
	}
	text := strings.TrimSpace(string(data))
	if text == "max" {
		return 0, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

// keyed reads a file of "key number" lines.
func keyed(dir, file string) (map[string]uint64, error) {
	f, err := os.Open(filepath.Join(dir, file))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]uint64{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		key, value, _ := strings.Cut(s.Text(), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[key] = n
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return out, nil
}
