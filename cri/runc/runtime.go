// Package runc drives an OCI runtime binary (runc, crun or any other with their command line) by the OCI
// runtime command line: it knows the arguments of each verb and turns what the runtime logs into one clear
// error. It keeps no state.
package runc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Runtime is an OCI runtime binary.
type Runtime struct {
	Program string   // path or name: /usr/bin/crun, runc
	Root    string   `json:",omitempty"` // its state directory (--root); empty for its default
	Args    []string `json:",omitempty"` // further global flags, e.g. --systemd-cgroup
}

// Descriptors that a started runtime finds beside its standard ones.
const (
	LogFd     = 3 // its log, JSON lines
	ProcessFd = 4 // exec: process.json
)

// CreateArgs is the argument list (program first) of create. The container's stdio is the runtime's own;
// consoleSocket is empty without a terminal.
func (r Runtime) CreateArgs(id, bundle, pidFile, consoleSocket string) []string {
	args := append(r.global(), "create", "--bundle", bundle, "--pid-file", pidFile)
	if consoleSocket != "" {
		args = append(args, "--console-socket", consoleSocket)
	}
	return append(args, id)
}

// ExecArgs is the argument list of a detached exec of the process.json at ProcessFd.
func (r Runtime) ExecArgs(id, pidFile, consoleSocket string) []string {
	args := append(
		r.global(),
		"exec",
		"--detach",
		"--process",
		fmt.Sprintf("/proc/self/fd/%d", ProcessFd),
		"--pid-file",
		pidFile,
	)
	if consoleSocket != "" {
		args = append(args, "--console-socket", consoleSocket, "--tty")
	}

	return append(args, id)
}

// DeleteArgs is the argument list of a delete that kills what is left.
func (r Runtime) DeleteArgs(id string) []string { return append(r.global(), "delete", "--force", id) }

// NotThere reports whether the runtime failed because it knows no such container.
func NotThere(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok &&
		(strings.Contains(e.Message, "does not exist") ||
			strings.Contains(e.Message, "No such file or directory"))
}

func (r Runtime) global() []string {
	args := []string{r.Program}
	if r.Root != "" {
		args = append(args, "--root", r.Root)
	}
	args = append(args, r.Args...)
	return append(args, "--log", fmt.Sprintf("/proc/self/fd/%d", LogFd), "--log-format", "json")
}

// Start starts the user's program of a created container.
func (r Runtime) Start(ctx context.Context, id string) error {
	_, err := r.run(ctx, nil, "start", id)
	return err
}

// Delete kills what is left of the container and removes the runtime's state and cgroup. What is not there is
// success.
func (r Runtime) Delete(ctx context.Context, id string) error {
	_, err := r.run(ctx, nil, "delete", "--force", id)
	if err != nil && NotThere(err) {
		return nil
	}
	return err
}

// Update changes the resources of a live container.
func (r Runtime) Update(ctx context.Context, id string, resources *specs.LinuxResources) error {
	data, err := json.Marshal(resources)
	if err != nil {
		return fmt.Errorf("encode resources of %s: %w", id, err)
	}
	_, err = r.run(ctx, data, "update", "--resources", "-", id)
	return err
}

// State asks the runtime for the container's state. fs.ErrNotExist when it knows no such container.
func (r Runtime) State(ctx context.Context, id string) (specs.State, error) {
	var state specs.State
	out, err := r.run(ctx, nil, "state", id)
	if err != nil {
		if NotThere(err) {
			return state, fmt.Errorf("container %s: %w", id, os.ErrNotExist)
		}

		return state, err
	}

	if err := json.Unmarshal(out, &state); err != nil {
		return state, fmt.Errorf("state of container %s: %w", id, err)
	}

	return state, nil
}

// run runs one verb and waits for it. A runtime that outlives this process finishes what it was asked for;
// all verbs here may be repeated.
func (r Runtime) run(ctx context.Context, stdin []byte, verb string, args ...string) ([]byte, error) {
	path, err := r.Executable()
	if err != nil {
		return nil, err
	}

	log, err := NewLog(verb, args[len(args)-1])
	if err != nil {
		return nil, err
	}
	defer log.Close()

	cmd := exec.CommandContext(ctx, path)
	cmd.Args = append(append(r.global(), verb), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.ExtraFiles = []*os.File{log}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s %s %s: %w", base(r.Program), verb, args[len(args)-1], context.Cause(ctx))
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		err = ExitCode(exit.ExitCode())
	}

	return nil, Failure(r, verb, args[len(args)-1], err, log, stderr.Bytes())
}

// NewLog makes the anonymous file that a runtime logs to. It is named after the call, so that Calls finds who
// was started with it.
func NewLog(verb, id string) (*os.File, error) {
	fd, err := unix.MemfdCreate(logName(verb, id), unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory file for the runtime's log: %w", err)
	}
	return os.NewFile(uintptr(fd), "oci-runtime-log"), nil
}

func logName(verb, id string) string { return "oci-runtime-" + verb + "-" + id }

// Calls lists the other processes that work on a call of a runtime: its own and, as crun does not close the
// log, those that it forked, down to the container's init until that executes the user's program.
func Calls(verb, id string) ([]int, error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}

	var pids []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}

		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, LogFd))
		if err == nil && target == "/memfd:"+logName(verb, id)+" (deleted)" {
			pids = append(pids, pid)
		}
	}

	return pids, nil
}

// ErrRefused is an Error of a runtime that ended by itself, with an exit code that is not 0: what it was
// asked for cannot be done. It is not one of a runtime that was killed or took too long.
var ErrRefused = errors.New("OCI runtime refused")

// ExitCode is the Cause of such an Error.
type ExitCode int

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Error is what a runtime said when it failed.
type Error struct {
	Program, Verb, ID string
	Message           string
	Cause             error // how the process ended or why it did not start
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s %s %s: %v", base(e.Program), e.Verb, e.ID, e.Cause)
	}
	return fmt.Sprintf("%s %s %s: %s", base(e.Program), e.Verb, e.ID, e.Message)
}

func (e *Error) Unwrap() error { return e.Cause }

// Is tells that the error is ErrRefused, too.
func (e *Error) Is(target error) bool {
	code, ok := errors.AsType[ExitCode](e.Cause)
	return target == ErrRefused && ok && code > 0
}

// maxLog bounds what is read of a runtime's log.
const maxLog = 64 << 10

// Failure makes the error of a runtime that ended with cause: its last logged error, else what it wrote to
// stderr.
func Failure(r Runtime, verb, id string, cause error, log *os.File, stderr []byte) error {
	e := &Error{
		Program: r.Program,
		Verb:    verb,
		ID:      id,
		Cause:   cause,
	}
	if log != nil {
		data := make([]byte, maxLog)
		n, _ := log.ReadAt(data, 0)
		e.Message = lastError(data[:n])
	}

	if e.Message == "" {
		e.Message = strings.TrimSpace(string(stderr[:min(len(stderr), maxLog)]))
	}

	return e
}

// lastError finds the message of the last line with level error or fatal, or of the last line at all.
func lastError(log []byte) string {
	last, level := "", ""
	for line := range bytes.Lines(log) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) != nil || entry.Msg == "" {
			continue
		}

		if severe := entry.Level == "error" || entry.Level == "fatal"; severe || level == "" {
			last = entry.Msg
			if severe {
				level = entry.Level
			}
		}
	}

	return last
}

func base(program string) string {
	return program[strings.LastIndexByte(program, '/')+1:]
}
