// Package mountinfo reads a process's table of mounts as proc_pid_mountinfo(5) describes it. It is the one
// reader of that table here. A line has no bound: the options of one overlay name up to 500 directories, and
// a table that cannot be read because of one container's mount would keep all others from being cleaned up.
package mountinfo

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Mount is one mount. Names are as they are in the file system, without the escapes of the table.
type Mount struct {
	ID      string // of the mount, and that of the one that it is mounted in
	Parent  string
	Peers   string // number of the mounts among which mounts below are shared; "" for one that shares none
	Root    string // path of what is mounted within its file system, or e.g. "net:[4026531840]" of an nsfs
	Point   string // where it is mounted, without symbolic links
	Device  string // "MAJOR:MINOR" of the file system
	FSType  string
	Source  string // what is mounted, such as "/dev/sda1"; each type of file system has its own
	Options string // those of the file system, separated by commas
}

// Self reads the table of the calling process, in the order in which the kernel lists mounts: parents before
// children, and what is covered before what covers it.
func Self() ([]Mount, error) { return read("/proc/self/mountinfo") }

// Of reads the table of another process; fs.ErrNotExist when it has ended.
func Of(pid int) ([]Mount, error) { return read(fmt.Sprintf("/proc/%d/mountinfo", pid)) }

func read(file string) ([]Mount, error) {
	table, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Parse(string(table)), nil
}

// optional is the number of fields before the optional ones.
const optional = 6

// Parse reads a table. Lines that are not of its form are skipped.
func Parse(table string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(table) {
		// 36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/sda1 rw,errors=continue
		// Any number of optional fields, such as shared:1, ends with a dash.
		fields := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(fields) < optional {
			continue
		}
		dash := slices.Index(fields[optional:], "-")
		if dash < 0 || len(fields) < optional+dash+4 {
			continue
		}

		super := fields[optional+dash+1:]
		mounts = append(mounts, Mount{
			ID:      fields[0],
			Parent:  fields[1],
			Peers:   peers(fields[optional : optional+dash]),
			Root:    unescape(fields[3]),
			Point:   unescape(fields[4]),
			Device:  fields[2],
			FSType:  super[0],
			Source:  unescape(super[1]),
			Options: unescape(super[2]),
		})
	}
	return mounts
}

// peers returns the number of a peer group among optional fields.
func peers(fields []string) string {
	for _, f := range fields {
		if number, ok := strings.CutPrefix(f, "shared:"); ok {
			return number
		}
	}
	return ""
}

// unescape replaces the octal escapes of space, tab, newline, backslash and # (\040 and the like).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}

	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || !isOctal(s[i+1:]) {
			b.WriteByte(s[i])
			continue
		}

		b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
		i += 3
	}

	return b.String()
}

// isOctal reports whether s begins with three octal digits that make one byte.
func isOctal(s string) bool {
	if len(s) < 3 || s[0] > '3' {
		return false
	}
	for _, digit := range []byte(s[:3]) {
		if digit < '0' || digit > '7' {
			return false
		}
	}
	return true
}
