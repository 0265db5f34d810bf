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

	"golang.org/x/sys/unix"
)

// IOLimits are how much may be read from and written to a block device in a second. 0: no limit.
type IOLimits struct {
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// ioLimit is one of IOLimits, in the kernel's files.
type ioLimit struct {
	legacy string // file of v1
	key    string // in io.max of v2
	value  uint64
}

func (l IOLimits) each() []ioLimit {
	return []ioLimit{
		{"blkio.throttle.read_bps_device", "rbps", l.ReadBytes},
		{"blkio.throttle.write_bps_device", "wbps", l.WriteBytes},
		{"blkio.throttle.read_iops_device", "riops", min(l.ReadOps, math.MaxUint32)},
		{"blkio.throttle.write_iops_device", "wiops", min(l.WriteOps, math.MaxUint32)},
	}
}

// LimitIO sets the limits of an existing group for a device, in place of those that it has for it. It writes
// only what is not as it should be. fs.ErrNotExist when the group is gone, unix.ENODEV when the device is.
//
// On v2 they hold for the group with all groups below it together, and for what the kernel writes back for
// them later. On v1 they hold for the processes of the group itself alone: what is written back later counts
// for the root group.
func (h *Host) LimitIO(group string, device uint64, l IOLimits) error {
	lines, err := ioLines(h, group, device, l)
	if err != nil {
		return err
	}
	for _, line := range lines {
		if err := write(line.dir, line.file, line.text); err != nil {
			return err
		}
	}
	return nil
}

// HasIOLimits reports whether a group has just these limits for a device. A group that is gone is
// fs.ErrNotExist.
func (h *Host) HasIOLimits(group string, device uint64, l IOLimits) (bool, error) {
	lines, err := ioLines(h, group, device, l)
	if errors.Is(err, fs.ErrNotExist) && h.V2 && h.Exists(group) {
		// The controller is not enabled.
		return false, nil
	}
	return err == nil && len(lines) == 0, err
}

// ioLine is one that is to be written to a file of a group.
type ioLine struct{ dir, file, text string }

// ioLines returns what has to be written so that a group has limits for a device; nothing if it has them.
func ioLines(h *Host, group string, device uint64, l IOLimits) ([]ioLine, error) {
	number := fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device))
	if h.V2 {
		return ioMax(h.Dir("io", group), number, l, h.Exists(group))
	}

	dir := h.Dir("blkio", group)
	if dir == "" {
		return nil, errors.New("no blkio controller of cgroup v1 is mounted")
	}

	var lines []ioLine
	for _, limit := range l.each() {
		text, err := ioFile(dir, limit.legacy)
		if err != nil {
			return nil, err
		}
		value := strconv.FormatUint(limit.value, 10)
		if have := of(text, number); have == value || have == "" && limit.value == 0 {
			continue
		}
		lines = append(lines, ioLine{dir, limit.legacy, number + " " + value})
	}

	return lines, nil
}

// ioMax is ioLines for the directory of a group on v2.
func ioMax(dir, number string, l IOLimits, exists bool) ([]ioLine, error) {
	line, none := "", true
	for _, limit := range l.each() {
		value := "max"
		if limit.value > 0 {
			value, none = strconv.FormatUint(limit.value, 10), false
		}
		line += " " + limit.key + "=" + value
	}

	text, err := ioFile(dir, "io.max")
	if errors.Is(err, fs.ErrNotExist) && none && exists {
		// Where the controller is not enabled, nothing is limited.
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if have := of(text, number); " "+have == line || have == "" && none {
		return nil, nil
	}

	return []ioLine{{dir, "io.max", number + line}}, nil
}

// ioFile reads a file of limits, which has a line for each device that is limited.
func ioFile(dir, file string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, file))
	return string(text), err
}

// of returns what is behind the key of a line, "" if there is no such line.
func of(text, key string) string {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, key+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// EnableIO makes limits of I/O possible in an existing group. On v2 that is up to its parents.
func (h *Host) EnableIO(group string) error {
	if !h.V2 {
		return nil
	}
	if _, err := os.Stat(filepath.Join(h.Dir("io", group), "io.max")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	dir := h.Dir("io", "/")
	for name := range strings.SplitSeq(strings.Trim(group, "/"), "/") {
		if err := write(dir, "cgroup.subtree_control", "+io"); err != nil {
			return err
		}
		dir += "/" + name
	}

	return nil
}
