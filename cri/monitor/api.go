// Package monitor is trivet-cri's side of trivet-monitor, the one parent of all containers of a node. Client
// starts the monitor when it is not there, asks it to create containers and to exec in them, tells of exits,
// and holds a second copy of what must outlive the monitor: every container's pidfd, output FIFOs and
// terminal. docs/monitor.md has the picture.
//
// What needs no parenthood is done here, in the caller's process, and never passes through the monitor:
// start, signals, delete, resource updates, terminal size, and the way of stdin to the container.
package monitor

import (
	"errors"
	"log/slog"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/trivet-node/trivet/cri/monitor/wire"
)

// Config says where the monitor is and how it is started.
type Config struct {
	Socket   string   // unix socket of the monitor, /run/trivet/monitor.sock
	StateDir string   // its boot-scoped state (FIFOs, records), /run/trivet/monitor; on tmpfs
	Program  string   // path of the trivet-monitor binary, started detached when nobody answers on Socket
	Args     []string // more flags for it, e.g. --log-level=debug
	LogFile  string   // where its own log lines go when it is started from here; empty: this process's stderr
	Log      *slog.Logger
}

// Types shared with the monitor.
type (
	Runtime   = wire.Runtime
	Container = wire.Container
	Exit      = wire.Exit
	Status    = wire.Status
)

// UnknownCode is the Code of an Exit whose status nobody saw.
const UnknownCode = wire.UnknownCode

// ExecConfig is a process to be started in a running container.
type ExecConfig struct {
	ID string
	// whole: args, env, cwd, user, capabilities...; take the container's and replace args and terminal
	Process specs.Process
	// Ends of pipes for the process, not used when Process.Terminal is set; nil is /dev/null. They are made
	// blocking; the caller closes its copies after Exec.
	Stdin, Stdout, Stderr *os.File
}

// Errors a caller branches on.
var (
	ErrNotFound = wire.ErrNotFound
	ErrExists   = wire.ErrExists
	ErrExited   = wire.ErrExited
	ErrRefused  = wire.ErrRefused // the OCI runtime says that it cannot be done
	ErrClosed   = errors.New("monitor client is closed")
)
