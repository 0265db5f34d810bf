// Package daemon is trivet-monitor: the parent of all containers of a node. It starts OCI runtimes, copies
// output to the CRI logs, reaps, reports exits, and does nothing else. All that it knows is in small files
// and FIFOs on tmpfs, so the successor of a killed monitor goes on where that was.
//
// Calls go one way: Daemon (the life of the process) -> server (requests of clients) -> containers (all of
// the node) -> container (one of them) -> node (what all of them share).
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logjournal"
	"github.com/trivet-node/trivet/cri/monitor/handover"
	"github.com/trivet-node/trivet/cri/monitor/reaper"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/lockfile"
)

// Config says where the daemon lives.
type Config struct {
	Socket   string
	StateDir string // on tmpfs: its content must end with the boot
	Log      *slog.Logger

	// Ready, if not nil, is called once the socket answers, but not again after an upgrade.
	Ready func()
}

// Names of the descriptors that an upgrade hands over. The last two have the container's ID after the slash.
const (
	handListener   = "listener"
	handSocketLock = "lock"
	handStateLock  = "state"
	handTerminal   = "tty/"
	handStdin      = "in/"
)

// journalSlots is how many batches of output are moved at once: a slow disk must stall more than one
// container before it stalls all.
const journalSlots = 4

// Daemon is the monitor's process: its locks, its socket, and its upgrade.
type Daemon struct {
	cfg        Config
	program    string
	socketLock *os.File

	// stateLock keeps a second monitor, at another socket, away from the same FIFOs.
	stateLock *os.File

	listener   *wire.Listener
	node       *node
	containers *containers
	server     *server
}

// Run serves until ctx ends or a client dismisses the monitor. Containers go on after it. SIGUSR2 makes it
// execute its program again, which may have been replaced by then; children and terminals stay.
func Run(ctx context.Context, cfg Config) error {
	// The path is found before the file at it is replaced.
	program, err := os.Executable()
	if err != nil {
		return err
	}

	cgroups, err := cgroup.Open()
	if err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.StateDir, "containers"), 0o700); err != nil {
		return err
	}

	inherited, err := handover.Receive(cfg.StateDir)
	if err != nil {
		cfg.Log.Error("descriptors from before the upgrade are lost", "err", err)
	}

	d := &Daemon{cfg: cfg, program: program}
	defer d.close()

	if err := d.claim(ctx, inherited); err != nil {
		return err
	}

	journal, err := logjournal.Open(filepath.Join(cfg.StateDir, "journal"), journalSlots)
	if err != nil {
		return err
	}

	d.node = &node{
		stateDir: cfg.StateDir,
		log:      cfg.Log,
		cgroups:  cgroups,
		reaper:   reaper.New(),
		journal:  journal,
		clients:  &clients{all: map[*session]struct{}{}},
	}

	d.containers = &containers{node: d.node, byID: map[string]*container{}}
	d.server = newServer(d.containers, d.listener)
	return d.run(ctx, inherited)
}

// claim takes the locks and the socket: from the program before this one in the process, or from a monitor
// that has died, but not from one that lives.
func (d *Daemon) claim(ctx context.Context, inherited handover.Descriptors) error {
	var err error
	d.socketLock, err = takeLock(ctx, inherited, handSocketLock, d.cfg.Socket+".lock",
		"socket "+d.cfg.Socket+" (--socket)")
	if err != nil {
		return err
	}

	d.stateLock, err = takeLock(ctx, inherited, handStateLock, filepath.Join(d.cfg.StateDir, "lock"),
		"state directory "+d.cfg.StateDir+" (--state-dir)")
	if err != nil {
		return err
	}

	if fd, ok := inherited.Take(handListener); ok {
		d.listener, err = wire.Inherit(d.cfg.Socket, fd)
	} else {
		d.listener, err = wire.Listen(d.cfg.Socket)
	}

	return err
}

func takeLock(
	ctx context.Context,
	inherited handover.Descriptors,
	name, path, what string,
) (*os.File, error) {
	if fd, ok := inherited.Take(name); ok {
		return os.NewFile(uintptr(fd), path), nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return lockfile.Take(ctx, path, what)
}

// close releases what claim took, the socket first.
func (d *Daemon) close() {
	if d.listener != nil {
		d.listener.Close()
		if err := d.listener.Remove(); err != nil {
			d.cfg.Log.Warn("socket is not removed", "err", err)
		}

	}
	d.stateLock.Close()
	d.socketLock.Close()
}

// run takes over what is there and serves until ctx ends.
func (d *Daemon) run(ctx context.Context, inherited handover.Descriptors) error {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()

	// Stderr may be a pipe of a server that is gone: logging into it must not kill the monitor. The signal is
	// handled and not ignored, because children would inherit that.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGPIPE)
	defer signal.Stop(broken)

	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, unix.SIGUSR2)
	defer signal.Stop(upgrades)

	// Children may end before their containers are known again.
	release := d.node.reaper.KeepUnclaimed()
	background.Go(func() { d.node.reaper.Run(ctx) })
	upgraded := inherited != nil
	d.containers.recover(inherited)
	release()

	d.protect()
	if d.cfg.Ready != nil && !upgraded {
		d.cfg.Ready()
	}

	d.cfg.Log.Info("monitor is ready", "socket", d.cfg.Socket, "containers", len(d.containers.list()))

	defer context.AfterFunc(ctx, func() { d.listener.Close() })()

	background.Go(func() { d.control(ctx, upgrades, cancel) })
	return d.accept(ctx)
}

// control carries out upgrades, and ends the daemon once it is dismissed.
func (d *Daemon) control(ctx context.Context, upgrades chan os.Signal, end context.CancelFunc) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.server.dismissed:
			end()
			return
		case <-upgrades:
			d.cfg.Log.Error("upgrade", "err", d.upgrade())
			signal.Notify(upgrades, unix.SIGUSR2)
		}
	}
}

func (d *Daemon) accept(ctx context.Context) error {
	for {
		conn, err := d.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", d.cfg.Socket, err)
		}
		go d.server.serve(conn)
	}
}

// protect keeps the OOM killer away from the one process that all containers of the node depend on. Where the
// privilege is missing, the value stays as it is.
func (d *Daemon) protect() {
	const score = "-999"
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0); err != nil {
		d.cfg.Log.Debug("oom_score_adj stays as it is", "err", err)
	}
}

// upgrade executes the program again in this process: children stay children, so no exit status depends on
// anybody else. It returns only on an error.
func (d *Daemon) upgrade() error {
	// Requests that are being served and exits that are being recorded are waited for; children that end from
	// here on are reaped by the next program.
	d.server.busy.Lock()
	defer d.server.busy.Unlock()

	d.node.reaper.Pause()
	defer d.node.reaper.Resume()

	d.node.exits.Wait()

	descriptors := handover.Descriptors{}
	defer descriptors.Close()

	err := errors.Join(
		descriptors.AddConn(handListener, d.listener),
		descriptors.AddConn(handSocketLock, d.socketLock),
		descriptors.AddConn(handStateLock, d.stateLock),
	)

	for _, c := range d.containers.list() {
		err = errors.Join(err, c.handOver(descriptors))
	}

	if err != nil {
		return err
	}

	// Until the next program handles it, another SIGUSR2 would kill the process. "Ignore" survives an execve.
	d.cfg.Log.Info("executing the program again", "program", d.program)
	signal.Ignore(unix.SIGUSR2)
	return descriptors.Exec(d.program, d.cfg.StateDir)
}
