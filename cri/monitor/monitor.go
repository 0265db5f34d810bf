// Package monitor is trivet-cri's side of trivet-monitor, the one parent of all containers of a node. Client
// starts the monitor when there is none, asks it to create containers and to execute programs in them,
// reports exits, and holds a second set of the descriptors that would be lost with the monitor: each
// container's pidfd, output FIFOs and terminal. docs/monitor.md has the picture.
//
// What does not need the parent of a container is done here, in the caller's process, and does not pass
// through the monitor: start, signals, delete, resource updates, the size of a terminal, and the input of a
// container.
package monitor

import (
	"context"
	"errors"
	"log/slog"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// Config says where the monitor is and how it is started.
type Config struct {
	// Socket is the monitor's unix socket, such as /run/trivet/monitor.sock.
	Socket string

	// StateDir is the monitor's directory of FIFOs and records, on tmpfs, because they must end with the
	// boot.
	StateDir string

	// Program is the path of trivet-monitor. It is started detached when nobody answers on Socket.
	Program string

	// Args are more flags for it, such as --log-level=debug.
	Args []string

	// LogFile is what its own log is appended to; empty: the stderr of this process.
	LogFile string

	Log *slog.Logger

	// Deleted, if not nil, is called when the OCI runtime has deleted a container, or does not know it. It
	// removes what the runtime has left outside its state directory and its cgroup.
	Deleted func(ctx context.Context, id string) error
}

// Types of the protocol that callers use.
type (
	Container = wire.Container
	Exit      = wire.Exit
	Status    = wire.Status
)

// UnknownCode is the Code of an Exit whose status nobody saw.
const UnknownCode = wire.UnknownCode

// ExecConfig is a process to be started in a running container.
type ExecConfig struct {
	ID string // of the container

	// Process is the whole process: not only arguments and terminal, but also the environment, working
	// directory, user and capabilities, for which most callers use the container's.
	Process specs.Process

	// Stdin, Stdout and Stderr are ends of pipes for the process. Exec makes them blocking, and the caller
	// closes its own copies after Exec. A nil one is a null device; all are ignored if Process.Terminal is
	// set.
	Stdin, Stdout, Stderr *os.File
}

// Errors that callers branch on.
var (
	ErrNotFound = wire.ErrNotFound // the monitor does not know the container
	ErrExited   = wire.ErrExited   // the container has exited
	ErrRefused  = wire.ErrRefused  // the OCI runtime says that it cannot be done
)

// errClosed is returned by calls that wait for a monitor when the client is closed or the monitor was
// dismissed.
var errClosed = errors.New("monitor client is closed")
