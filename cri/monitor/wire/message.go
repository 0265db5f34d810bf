// Package wire is what trivet-monitor and its clients say to each other: one JSON message per packet on a
// SOCK_SEQPACKET unix socket, file descriptors beside it (SCM_RIGHTS). Packets keep their borders, so there
// is no framing to get wrong.
package wire

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/ociruntime"
)

// Op names a message. Requests carry a Seq that the reply repeats; events carry none, except ExecExit, which
// repeats the Exec's.
type Op string

// Requests, from client to monitor.
const (
	// hand a descriptor back after the monitor died; Descriptors: FdPid, FdTTY
	OpAdopt Op = "adopt"
	// "that was all I hold": Container events for all containers, then the reply, then Exit events
	OpHello  Op = "hello"
	OpCreate Op = "create" // Container -> Pid, descriptors as in a Container event
	// drop the container's record and FIFOs; Deleted, if the runtime needs not be asked to delete it; unknown
	// is success
	OpForget     Op = "forget"
	OpReopenLog  Op = "reopen-log"  //
	OpAttach     Op = "attach"      // copy output to the descriptors FdOut, FdErr from now on
	OpCloseStdin Op = "close-stdin" // give up the monitor's writing end of a StdinOnce container
	OpDismiss    Op = "dismiss"     // end, with the clients, unless a container is left
	// Descriptors: FdProcess, FdIn, FdOut, FdErr -> Pid, FdPid; later ExecExit
	OpExec Op = "exec"
)

// Messages from monitor to client.
const (
	OpReply     Op = "reply"
	OpContainer Op = "container" // Status and its descriptors
	OpExit      Op = "exit"
	OpExecExit  Op = "exec-exit"
	OpDismissed Op = "dismissed" // the monitor ends and is not to be started again
)

// Names of the descriptors that go with a message.
const (
	FdPid = "pid" // pidfd
	// reading end of the stdout FIFO (of the terminal's staging FIFO); in attach and exec a writing end
	FdOut     = "out"
	FdErr     = "err"     // the same for stderr
	FdIn      = "in"      // writing end of the stdin FIFO of a StdinOnce container; in exec a reading end
	FdTTY     = "tty"     // terminal master
	FdProcess = "process" // memfd with an OCI process.json
)

// Container is what create needs. The bundle must hold a config.json whose process.terminal equals TTY and
// whose process.oomScoreAdj equals OOMScoreAdj.
type Container struct {
	ID      string
	Bundle  string
	Runtime ociruntime.Runtime
	// CRI log file; its directory is made if need be; empty: output is read and dropped
	LogPath string `json:",omitempty"`
	TTY     bool   `json:",omitempty"`
	// keep a stdin that Attach can write to; otherwise stdin is /dev/null
	Stdin bool `json:",omitempty"`
	// the container's stdin ends when the first attached client closes its own
	StdinOnce bool `json:",omitempty"`
	// its cgroup, below the root: read at exit to report whether the OOM killer struck, emptied when it is
	// destroyed
	Cgroup string `json:",omitempty"`
	// The monitor protects itself from the OOM killer, and children inherit: crun gives an exec no value of
	// its own.
	OOMScoreAdj int `json:",omitempty"`
	// its PID namespace is not its own, so that what it started does not end with its first process
	SharedPID bool `json:",omitempty"`
}

// Exit tells how a container ended.
type Exit struct {
	ID      string
	Code    int         // 0..255; 128+Signal when a signal ended it
	Signal  unix.Signal `json:",omitempty"`
	At      time.Time
	OOM     bool `json:",omitempty"` // the OOM killer struck in its cgroup
	Unknown bool `json:",omitempty"` // nobody was there to see the status; Code is UnknownCode
}

// UnknownCode is the Code of an Exit whose status nobody saw: monitor and trivet-cri were dead at once, or
// the monitor on a kernel before 6.15.
const UnknownCode = 255

func (e Exit) String() string {
	switch {
	case e.Unknown:
		return "exit status unknown"
	case e.Signal != 0:
		return "killed by " + unix.SignalName(e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Status is what the monitor knows of a container.
type Status struct {
	Container
	Pid  int
	Exit *Exit `json:",omitempty"` // nil while it lives
}

// Message is every message.
type Message struct {
	Op        Op
	Seq       uint64     `json:",omitempty"`
	ID        string     `json:",omitempty"`
	Container *Container `json:",omitempty"`
	Status    *Status    `json:",omitempty"`
	Exit      *Exit      `json:",omitempty"`
	Pid       int        `json:",omitempty"`
	Exec      *Exec      `json:",omitempty"`
	Deleted   bool       `json:",omitempty"`
	Fail      *Fail      `json:",omitempty"`
	Fds       []string   `json:",omitempty"` // names of the descriptors, in their order
}

// Exec is a process to be started in a running container. The process itself is in the descriptor FdProcess.
type Exec struct {
	Runtime ociruntime.Runtime
	// where the caller waits for the terminal master; empty: no terminal
	ConsoleSocket string `json:",omitempty"`
}

// Fail is an error on its way to the client.
type Fail struct {
	Kind string `json:",omitempty"` // of the sentinels below
	Text string
}

// Sentinels that survive the way over the socket.
var (
	ErrNotFound = errors.New("no such container in the monitor")
	ErrExists   = errors.New("container exists in the monitor")
	ErrExited   = errors.New("container has exited")
	ErrRefused  = ociruntime.ErrRefused
)

var kinds = map[string]error{
	"not-found": ErrNotFound,
	"exists":    ErrExists,
	"exited":    ErrExited,
	"refused":   ErrRefused,
}

// FailOf makes a Fail of an error; nil of nil.
func FailOf(err error) *Fail {
	if err == nil {
		return nil
	}
	f := &Fail{Text: err.Error()}
	for kind, sentinel := range kinds {
		if errors.Is(err, sentinel) {
			f.Kind = kind
		}
	}
	return f
}

// Err gives the error back; errors.Is finds the sentinel.
func (f *Fail) Err() error {
	if f == nil {
		return nil
	}
	return &remoteError{text: f.Text, kind: kinds[f.Kind]}
}

type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// ExitOf translates a wait status. At is left to the caller.
func ExitOf(id string, status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{ID: id, Code: 128 + int(status.Signal()), Signal: status.Signal()}
	}
	return Exit{ID: id, Code: status.ExitStatus()}
}

// Names below the monitor's state directory that its clients know.
const (
	StdinFIFO  = "in"
	StdoutFIFO = "out"
	StderrFIFO = "err"
)

// ContainerDir is where the FIFOs and the record of a container are.
func ContainerDir(stateDir, id string) string { return filepath.Join(stateDir, "containers", id) }

// ConsoleDir is where console sockets live for the moment that they are needed.
func ConsoleDir(stateDir string) string { return filepath.Join(stateDir, "tty") }
