package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup/usage"
)

// Usage is one reading of a group's counters.
type Usage = usage.Reading

// CrunGroup is usage.CrunGroup.
const CrunGroup = usage.CrunGroup

// Usage reads the counters of a group, its children included; fs.ErrNotExist when the group is gone.
func (h *Host) Usage(group string) (Usage, error) { return h.Reader(group, false).Read(usage.Basic) }

// Reader returns a reader of the counters of a group, which need not exist yet. With keep, it keeps files of
// the group open between readings.
func (h *Host) Reader(group string, keep bool) *usage.Reader {
	return usage.NewReader(usage.Group{
		Name:      group,
		V2:        h.V2,
		Dir:       func(controller string) string { return h.Dir(controller, group) },
		PageSizes: h.pageSizes,
	}, keep)
}

// MemoryUsage returns the bytes of memory that a group uses, page cache and the groups below included: what
// the kernel compares with its limit. It reads one file; fs.ErrNotExist when the group is gone.
func (h *Host) MemoryUsage(group string) (int64, error) {
	file := "memory.usage_in_bytes"
	if h.V2 {
		file = "memory.current"
	}

	text, err := contents(h.Dir("memory", group), file)
	if err != nil {
		return 0, fmt.Errorf("memory of cgroup %s: %w", group, err)
	}

	return strconv.ParseInt(strings.TrimSpace(text), 10, 64)
}

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

	below, err := keyed(filepath.Join(dir, CrunGroup), "memory.oom_control")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return 0, err
	}

	return own["oom_kill"] + below["oom_kill"], nil
}

// CPUTime returns how much CPU time the processes of a group have used since it was made, those of groups
// below included. It reads one file.
func (h *Host) CPUTime(group string) (time.Duration, error) {
	if h.V2 {
		stat, err := keyed(h.Dir("", group), "cpu.stat")
		if err != nil {
			return 0, fmt.Errorf("CPU time of cgroup %s: %w", group, err)
		}
		return time.Duration(stat["usage_usec"]) * time.Microsecond, nil
	}

	text, err := contents(h.Dir("cpuacct", group), "cpuacct.usage")
	if err != nil {
		return 0, fmt.Errorf("CPU time of cgroup %s: %w", group, err)
	}

	ns, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return time.Duration(ns), err
}
