package cgroup

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

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
