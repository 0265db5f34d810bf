// Package ociruntime drives an OCI runtime (crun, runc or any other with their command line): it knows the
// arguments of each verb and turns what the runtime logs into one clear error. It keeps no state of
// containers.
package ociruntime

import "fmt"

// Runtime says which OCI runtime serves a container, and with which flags. It is recorded with the
// container, so that later calls reach the same one.
type Runtime struct {
	// Program is its path or its name: /usr/bin/crun, runc.
	Program string

	// Root is its state directory (--root); empty for its default one.
	Root string `json:",omitempty"`

	// Args are further global flags, such as --systemd-cgroup.
	Args []string `json:",omitempty"`
}

// Descriptors that a started runtime finds beside its standard ones.
const (
	// logFd is its log, JSON lines.
	logFd = 3

	// ProcessFd is the process.json of an exec.
	ProcessFd = 4
)

// CreateArgs returns the argument list (program first) of a create. The container's stdio is the
// runtime's own; consoleSocket is empty without a terminal.
func (r Runtime) CreateArgs(id, bundle, pidFile, consoleSocket string) []string {
	args := append(r.global(), "create", "--bundle", bundle, "--pid-file", pidFile)
	if consoleSocket != "" {
		args = append(args, "--console-socket", consoleSocket)
	}
	return append(args, id)
}

// ExecArgs returns the argument list of a detached exec of the process.json at ProcessFd. consoleSocket is
// empty without a terminal.
func (r Runtime) ExecArgs(id, pidFile, consoleSocket string) []string {
	process := fmt.Sprintf("/proc/self/fd/%d", ProcessFd)
	args := append(r.global(), "exec", "--detach", "--process", process, "--pid-file", pidFile)
	if consoleSocket != "" {
		args = append(args, "--console-socket", consoleSocket, "--tty")
	}
	return append(args, id)
}

// DeleteArgs returns the argument list of a delete that kills what is left.
func (r Runtime) DeleteArgs(id string) []string {
	return append(r.global(), "delete", "--force", id)
}

func (r Runtime) global() []string {
	args := []string{r.Program}
	if r.Root != "" {
		args = append(args, "--root", r.Root)
	}
	args = append(args, r.Args...)
	return append(args, "--log", fmt.Sprintf("/proc/self/fd/%d", logFd), "--log-format", "json")
}
