// Package wire is the protocol between trivet-monitor and its clients: one JSON message in each packet of a
// SOCK_SEQPACKET unix socket, with file descriptors beside it (SCM_RIGHTS). The socket keeps packets apart,
// so the protocol needs no framing.
package wire

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/ociruntime"
)

// Op names a message. A request carries a Seq, which its reply repeats. Events carry none, except ExecExit,
// which repeats that of the Exec.
type Op string

// Requests, from client to monitor. All but Adopt are answered by a Reply.
const (
	// OpAdopt hands descriptors back that a monitor had when it died: FdPid, FdTTY.
	OpAdopt Op = "adopt"

	// OpHello follows the last Adopt. The monitor sends a Container event for each container, then the Reply,
	// and from then on Exit events.
	OpHello Op = "hello"

	// OpCreate makes a container. The Reply has its Status, and descriptors as a Container event.
	OpCreate Op = "create"

	// OpForget removes a container's record and FIFOs. Deleted says that the runtime has deleted it already.
	// A container that the monitor does not know is success.
	OpForget Op = "forget"

	// OpReopenLog opens a container's log again.
	OpReopenLog Op = "reopen-log"

	// OpAttach copies a container's output to the descriptors FdOut and FdErr, from now on.
	OpAttach Op = "attach"

	// OpCloseStdin closes the monitor's writing end of the stdin of a StdinOnce container.
	OpCloseStdin Op = "close-stdin"

	// OpDismiss ends the monitor and its clients, unless a container is left.
	OpDismiss Op = "dismiss"

	// OpExec starts a process in a container, with the descriptors FdProcess, FdIn, FdOut and FdErr. The
	// Reply has Pid and FdPid; an ExecExit follows.
	OpExec Op = "exec"
)

// Messages from monitor to client.
const (
	OpReply     Op = "reply"
	OpContainer Op = "container" // Status and the container's descriptors
	OpExit      Op = "exit"
	OpExecExit  Op = "exec-exit"
	OpDismissed Op = "dismissed" // the monitor ends, and must not be started again
)

// Names of the descriptors that go with a message.
const (
	// FdPid is a pidfd.
	FdPid = "pid"

	// FdOut is the reading end of the stdout FIFO, or of the FIFO behind a terminal; in Attach and Exec a
	// writing end.
	FdOut = "out"

	// FdErr is the same for stderr.
	FdErr = "err"

	// FdIn is the writing end of the stdin FIFO of a StdinOnce container; in Exec a reading end.
	FdIn = "in"

	// FdTTY is the master of a terminal.
	FdTTY = "tty"

	// FdProcess is a file in memory with an OCI process.json.
	FdProcess = "process"
)

// Container is what a create needs. The bundle must hold a config.json whose process.terminal equals TTY and
// whose process.oomScoreAdj equals OOMScoreAdj.
type Container struct {
	ID      string
	Bundle  string
	Runtime ociruntime.Runtime

	// LogPath is the CRI log file, whose directory is made if it is missing. If it is empty, output is read
	// and dropped.
	LogPath string `json:",omitempty"`

	TTY bool `json:",omitempty"`

	// Stdin asks for a stdin that Attach can write to; without it, stdin is a null device.
	Stdin bool `json:",omitempty"`

	// StdinOnce says that stdin ends when the first attached client closes its own.
	StdinOnce bool `json:",omitempty"`

	// Cgroup is the container's, below the root of the hierarchy. At the exit it says whether the OOM killer
	// struck, and it is emptied when the container is destroyed.
	Cgroup string `json:",omitempty"`

	// OOMScoreAdj is given to the container and its execs, which would inherit the monitor's protection
	// otherwise: crun does not give an exec a value of its own.
	OOMScoreAdj int `json:",omitempty"`

	// SharedPID says that the container joins another PID namespace, so that what it started does not end
	// with its first process.
	SharedPID bool `json:",omitempty"`
}

// Exit is the end of a container or an exec.
type Exit struct {
	ID      string
	Code    int         // 0..255; 128+Signal when a signal ended it
	Signal  unix.Signal `json:",omitempty"`
	At      time.Time
	OOM     bool `json:",omitempty"` // the OOM killer struck in its cgroup
	Unknown bool `json:",omitempty"` // nobody saw the status; Code is UnknownCode
}

// UnknownCode is the Code of an Exit whose status nobody saw: monitor and trivet-cri were dead at the same
// time, or the monitor on a kernel before 6.15.
const UnknownCode = 255

// String returns "exit code N", "killed by SIGNAME" or that the status is unknown.
func (e Exit) String() string {
	switch {
	case e.Unknown:
		return "exit status unknown"
	case e.Signal != 0:
		return "killed by " + unix.SignalName(e.Signal)
	}
	return fmt.Sprintf("exit code %d", e.Code)
}

// Status is what the monitor knows about a container.
type Status struct {
	Container
	Pid  int
	Exit *Exit `json:",omitempty"` // nil until it has exited
}

// Message is a message of any kind; which fields it has depends on Op.
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

	// ConsoleSocket is where the client waits for the master of the terminal; empty without one.
	ConsoleSocket string `json:",omitempty"`
}

// Fail is the error of a request.
type Fail struct {
	Kind string `json:",omitempty"` // of the sentinels below
	Text string
}

// Errors that clients branch on. errors.Is finds them in what Fail.Err returns.
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

// FailOf returns the Fail of an error; nil of nil.
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

// Err returns the error; nil of nil.
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

// ExitOf returns the exit of a wait status, without At.
func ExitOf(id string, status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{ID: id, Code: 128 + int(status.Signal()), Signal: status.Signal()}
	}
	return Exit{ID: id, Code: status.ExitStatus()}
}

// Names of FIFOs in a container's directory that clients use.
const (
	StdinFIFO  = "in"
	StdoutFIFO = "out"
	StderrFIFO = "err"
)

// ContainerDir returns where the FIFOs and the record of a container are.
func ContainerDir(stateDir, id string) string { return filepath.Join(stateDir, "containers", id) }

// ConsoleDir returns where console sockets are made, while they are needed.
func ConsoleDir(stateDir string) string { return filepath.Join(stateDir, "tty") }
