package pidfd

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// notExecuted is PF_FORKNOEXEC of the kernel's task flags: the process was forked, and has executed nothing.
const notExecuted = 0x40

// Notices reports whether a signal that is sent to a process now reaches its program. It does not while an
// OCI runtime has still to execute the program; and process 1 of a PID namespace, for which there is no
// default action, gets only what it catches or blocks (pid_namespaces(7)). SIGKILL always reaches it.
func Notices(pid int, signal unix.Signal) (bool, error) {
	fields, err := stat(pid)
	if err != nil {
		return false, err
	}
	if len(fields) < 7 {
		return false, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}

	flags, err := strconv.ParseUint(fields[6], 10, 64)
	if err != nil {
		return false, fmt.Errorf("flags of /proc/%d/stat: %w", pid, err)
	}
	if flags&notExecuted != 0 {
		return signal == unix.SIGKILL, nil
	}

	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false, err
	}
	return noticed(string(status), signal), nil
}

// noticed decides by the lines of /proc/PID/status.
func noticed(status string, signal unix.Signal) bool {
	first := false
	var handled uint64
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "NSpid":
			// The last one is that of the innermost namespace.
			pids := strings.Fields(value)
			first = len(pids) > 0 && pids[len(pids)-1] == "1"
		case "SigCgt", "SigBlk":
			mask, _ := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			handled |= mask
		}
	}

	return !first || signal == unix.SIGKILL || handled&(1<<(signal-1)) != 0
}
