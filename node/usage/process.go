package usage

import (
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
		Count:        uint64(group.Count),
		Counted:      group.Count <= maxProcesses,
		MaxOpenFiles: -1,
	}
	if len(group.PIDs) > 0 {
		out.First = group.PIDs[0]
		out.MaxOpenFiles = maxOpenFiles(out.First)
	}

	for _, pid := range group.PIDs {
		if !out.Counted {
			break
		}

		r.descriptors(pid, out)
	}

	return out
}

// maxOpenFiles returns the soft limit of open files of a process, -1 for none or a process that is gone.
func maxOpenFiles(pid int) int64 {
	var limit unix.Rlimit
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit) != nil || limit.Cur >= unlimited {
		return -1
	}
	return int64(limit.Cur)
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
	for _, name := range names {
		if isSocket(int(dir.Fd()), name) {
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
