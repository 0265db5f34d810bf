// Command trivet-monitor is the parent of all containers of a node.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/trivet-node/trivet/cri/monitor/daemon"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `
trivet-monitor is the one parent of all containers of a node: it starts the OCI runtime (crun or
runc), writes container output to the log files that kubectl logs reads, and reports to trivet-cri
how containers end. trivet-cri starts it; it does not need a configuration. It may be killed:
trivet-cri starts it again, containers run on and no output is lost. SIGTERM ends it, containers run
on. SIGUSR2 makes it execute its program again, which may have been upgraded.

"trivet-monitor pause" is the first process of a pod that shares its PID namespace: it reaps, and
ends on SIGTERM.`

func main() {
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		pause()
		return
	}
	program.Main("trivet-monitor", run)
}

func run(ctx context.Context, env *program.Env) error {
	fs := env.Flags(about)
	cfg := daemon.Config{}
	fs.StringVar(&cfg.Socket, "socket", "/run/trivet/monitor.sock", "unix socket that trivet-cri connects to")
	fs.StringVar(
		&cfg.StateDir,
		"state-dir",
		"/run/trivet/monitor",
		"directory of records and FIFOs; must be on tmpfs, its content ends with the boot",
	)

	ready := fs.Int("ready-fd", -1, "descriptor that is written to once the socket answers")
	if err := env.Parse(fs); err != nil {
		return err
	}

	if fs.NArg() > 0 {
		return &program.UsageError{
			Err: fmt.Errorf("unexpected argument %q (see trivet-monitor --help)", fs.Arg(0)),
		}
	}

	if err := program.RequireRoot(); err != nil {
		return err
	}

	// Little to compute, little to keep: two threads of Go code are enough, and memory counts more than
	// collector time.
	runtime.GOMAXPROCS(min(2, runtime.NumCPU()))
	debug.SetGCPercent(25)
	cfg.Log = env.Log
	cfg.Ready = func() {
		if *ready > 2 {
			f := os.NewFile(uintptr(*ready), "ready")
			// A parent that has gone does not read it.
			_, _ = f.WriteString("ready\n")
			f.Close()
		}
	}

	return daemon.Run(ctx, cfg)
}
