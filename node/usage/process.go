package usage

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
)

// Bounds of what is counted in one group: one with more has processes, but no descriptors and sockets.
const (
	maxProcesses = 512
	maxFDs       = 4096
)

// processes looks at the processes of a group.
func (r *reader) processes(group counters.Processes) *Processes {
	out := &Processes{
		Count:   uint64(group.Count),
		Counted: group.Count <= maxProcesses,
	}
	if len(group.PIDs) > 0 {
		out.First = group.PIDs[0]
		if limit, ok := r.maxOpenFiles(out.First); ok {
			out.MaxOpenFiles = &limit
		}
	}

	for _, pid := range group.PIDs {
		if !out.Counted {
			break
		}

		r.descriptors(pid, out)
	}

	return out
}

// maxOpenFiles returns the soft limit of open files of a process, -1 for none; false for a process that is
// gone. The file may be read without the capability that prlimit(2) needs for the processes of other users.
func (r *reader) maxOpenFiles(pid int) (int64, bool) {
	b, err := r.read(r.proc(strconv.Itoa(pid)), "limits")
	if err != nil {
		return 0, false
	}

	// Max open files            1024                 1048576              files
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Max open files"))
		if fields := bytes.Fields(rest); ok && len(fields) > 0 {
			if string(fields[0]) == "unlimited" {
				return -1, true
			}

			return int64(min(parse(fields[0]), unlimited)), true
		}
	}

	return 0, false
}

// descriptors counts what a process has open. A process that has ended has nothing.
func (r *reader) descriptors(pid int, out *Processes) {
	dir, err := os.Open(r.proc(strconv.Itoa(pid) + "/fd"))
	if err != nil {
		return
	}
	defer dir.Close()

	names, err := dir.Readdirnames(maxFDs + 1)
	if err != nil {
		return
	}

	if out.FDs+uint64(len(names)) > maxFDs {
		out.Counted = false
		return
	}

	out.FDs += uint64(len(names))
	fd := int(dir.Fd())
	for _, name := range names {
		if isSocket(fd, name) {
			out.Sockets++
		}
	}
}

// isSocket reports whether an open file, by its name in /proc/PID/fd, is a socket: a link to "socket:[...]".
func isSocket(dir int, name string) bool {
	var link [8]byte
	n, err := unix.Readlinkat(dir, name, link[:])
	return err == nil && n >= 7 && string(link[:7]) == "socket:"
}
