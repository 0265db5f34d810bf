package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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

	// it went between the opening of a file and the reading
	if errors.Is(err, unix.ENODEV) {
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

	// "unlimited" is the largest page multiple
	if limit < math.MaxInt64/4096*4096-4096 {
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

	text, err := contents(dir, file)
	if err != nil {
		return 0, err
	}

	text = strings.TrimSpace(text)
	if text == "max" {
		return 0, nil
	}

	return strconv.ParseUint(text, 10, 64)
}

// keyed reads a file of "key number" lines.
func keyed(dir, file string) (map[string]uint64, error) {
	text, err := contents(dir, file)
	if err != nil {
		return nil, err
	}

	out := make(map[string]uint64, strings.Count(text, "\n"))
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[key] = n
		}
	}

	if len(out) == 0 {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}

	return out, nil
}

// buffers are for contents; the longest file, memory.stat on v2, has less than half of that.
var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// contents reads a file of the kernel's with as few calls as can be: the stats of a node are some thousand
// files, and with os.ReadFile half of the time goes into asking for the size, which it does not tell, and
// for the end, which a short read is.
func contents(dir, file string) (string, error) {
	path := filepath.Join(dir, file)
	fd, err := retried(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)

	buf := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(buf)

	n, err := retried(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err == nil && n == len(buf) {
		err = unix.EFBIG
	}
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}

	return string(buf[:n]), nil
}

// retried repeats a call that a signal has cut off.
func retried(call func() (int, error)) (n int, err error) {
	for n, err = call(); errors.Is(err, unix.EINTR); n, err = call() {
	}
	return n, err
}
