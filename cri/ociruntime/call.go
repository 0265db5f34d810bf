package ociruntime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Call is one call of a runtime, from before its start to the error that it fails with.
type Call struct {
	runtime  Runtime
	verb, id string
	log      *os.File
}

// NewCall prepares a call of a verb for a container. The caller starts the runtime with Log as logFd, and
// closes the Call when that has ended.
func (r Runtime) NewCall(verb, id string) (*Call, error) {
	fd, err := unix.MemfdCreate(r.logName(verb, id), unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory file for the runtime's log: %w", err)
	}
	log := os.NewFile(uintptr(fd), "oci-runtime-log")
	return &Call{
		runtime: r,
		verb:    verb,
		id:      id,
		log:     log,
	}, nil
}

// Log returns the anonymous file that the runtime logs to. It belongs to the Call. It is named after the
// verb and the container, so that Processes finds the processes that have it open.
func (c *Call) Log() *os.File { return c.log }

// Close closes the log.
func (c *Call) Close() error { return c.log.Close() }

// maxLog bounds what is read of a runtime's log and of its standard error, in bytes.
const maxLog = 64 << 10

// Failed returns the error of a runtime that ended with cause: its last logged error, else what it wrote to
// standard error, else the cause.
func (c *Call) Failed(cause error, stderr []byte) error {
	data := make([]byte, maxLog)
	n, _ := c.log.ReadAt(data, 0)
	e := c.err(cause)
	e.Message = lastError(data[:n])
	if e.Message == "" {
		e.Message = strings.TrimSpace(string(stderr[:min(len(stderr), maxLog)]))
	}
	return e
}

// Abandoned returns the error of a runtime that the caller killed because of cause: what it had logged until
// then is not the reason.
func (c *Call) Abandoned(cause error) error { return c.err(cause) }

func (c *Call) err(cause error) *Error {
	return &Error{
		Program: c.runtime.Program,
		Verb:    c.verb,
		ID:      c.id,
		Cause:   cause,
	}
}

// lastError returns the message of the last line with level error or fatal, or of the last line at all.
func lastError(log []byte) string {
	last, lastSevere := "", ""
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) != nil || entry.Msg == "" {
			continue
		}

		last = entry.Msg
		if entry.Level == "error" || entry.Level == "fatal" {
			lastSevere = entry.Msg
		}
	}

	if lastSevere != "" {
		return lastSevere
	}

	return last
}

// logName also tells nodes apart that share a machine, each with state directories of its own.
func (r Runtime) logName(verb, id string) string {
	return fmt.Sprintf("oci-runtime-%s-%s-%08x", verb, id, crc32.ChecksumIEEE([]byte(r.Root)))
}

// Processes returns the PIDs of all other processes that work on a call of a runtime with this state
// directory: the runtime and, as crun does not close its log, those that it forked, down to the container's
// init until that executes the user's program.
func (r Runtime) Processes(verb, id string) ([]int, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}

	log := "/memfd:" + r.logName(verb, id) + " (deleted)"
	var pids []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}

		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, logFd))
		if err == nil && target == log {
			pids = append(pids, pid)
		}
	}

	return pids, nil
}
