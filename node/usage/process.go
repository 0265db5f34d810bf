package usage

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Bounds of what is counted in one group: one with more has processes, but no descriptors and sockets.
const (
	maxProcesses = 512
	maxFDs       = 4096
)

// crunGroup is where crun puts the processes of a container whose scope systemd made.
const crunGroup = "container"

// pids returns the IDs of the processes of a group, those of groups below it not included, one a line, until
// the next read.
func (r *reader) pids(path string) []byte {
	dir := r.groups.Dir("cpu", path)
	b, err := r.read(dir, "cgroup.procs")
	if err == nil && len(b) == 0 {
		b, err = r.read(dir+"/"+crunGroup, "cgroup.procs")
	}
	if err != nil {
		return nil
	}
	return b
}

// processes looks at the processes of a group.
func (r *reader) processes(path string) *Processes {
	pids := bytes.Clone(r.pids(path))
	out := &Processes{Count: uint64(bytes.Count(pids, []byte("\n")))}
	out.Counted = out.Count <= maxProcesses

	for line := range bytes.Lines(pids) {
		pid := string(bytes.TrimSpace(line))
		if out.First == "" {
			out.First = pid
			out.MaxOpenFiles = maxOpenFiles(pid)
		}

		if !out.Counted {
			break
		}

		r.descriptors(pid, out)
	}

	return out
}

// maxOpenFiles returns the soft limit of open files of a process, -1 for none or a process that is gone.
func maxOpenFiles(pid string) int64 {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return -1
	}
	var limit unix.Rlimit
	if unix.Prlimit(n, unix.RLIMIT_NOFILE, nil, &limit) != nil || limit.Cur >= unlimited {
		return -1
	}
	return int64(limit.Cur)
}

// descriptors counts what a process has open. A process that has ended has nothing.
func (r *reader) descriptors(pid string, out *Processes) {
	dir, err := os.Open(r.proc(pid + "/fd"))
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
