// Package daemon is trivet-monitor itself: the parent of all containers of a node. It starts OCI runtimes,
// copies output to the CRI logs, reaps, tells of exits, and does nothing else. Everything it knows is in
// small files and FIFOs on tmpfs, so a killed monitor's successor goes on where it was.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logjournal"
	"github.com/trivet-node/trivet/cri/monitor/wire"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/lockfile"
)

// Config says where the daemon lives.
type Config struct {
	Socket   string
	StateDir string
	Log      *slog.Logger
	Ready    func() // called once the socket answers, but not again after an upgrade
}

// journalSlots is how many batches of output are moved at once: a slow disk must stall more than one
// container before it stalls all.
const journalSlots = 4

// Daemon is the monitor.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	program string // our binary, found before anybody replaces it
	cgroups *cgroup.Host
	reaper  *reaper
	journal *logjournal.Journal
	listen  *listener
	// stateLock keeps a second monitor, at another socket, away from the same FIFOs.
	stateLock *os.File
	locks     keylock.Locks[string] // one operation per container
	dismissed chan struct{}         // closed when the daemon is to end for good

	// busy is read-locked by operations that must not be cut by an upgrade; telling are exits of children
	// that are on their way to record and client.
	busy    sync.RWMutex
	telling sync.WaitGroup

	mu         sync.Mutex // guards all below
	containers map[string]*container
	sessions   map[*session]struct{}
}

// Run serves until ctx ends. Containers go on after it. SIGUSR2 makes it execute its binary anew, children
// and terminals kept.
func Run(ctx context.Context, cfg Config) error {
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

	inherited, err := takeInherited(cfg.StateDir)
	if err != nil {
		cfg.Log.Error("descriptors of the earlier life are lost", "err", err)
	}

	l, err := listen(ctx, cfg.Socket, inherited)
	if err != nil {
		return err
	}
	defer l.close()

	stateLock, err := lockState(ctx, cfg.StateDir, inherited)
	if err != nil {
		return err
	}
	defer stateLock.Close()

	d := &Daemon{
		cfg:        cfg,
		log:        cfg.Log,
		program:    program,
		cgroups:    cgroups,
		reaper:     newReaper(),
		listen:     l,
		stateLock:  stateLock,
		dismissed:  make(chan struct{}),
		containers: map[string]*container{},
		sessions:   map[*session]struct{}{},
	}
	if d.journal, err = logjournal.Open(filepath.Join(cfg.StateDir, "journal"), journalSlots); err != nil {
		return err
	}

	return d.run(ctx, inherited)
}

func lockState(ctx context.Context, dir string, inherited map[string]int) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	if fd, ok := inherited[inheritState]; ok {
		return os.NewFile(uintptr(fd), path), nil
	}
	return lockfile.Take(ctx, path, "state directory "+dir+" (--state-dir)")
}

func (d *Daemon) run(ctx context.Context, inherited map[string]int) error {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	// Our stderr may be a pipe of a server that is gone: logging into it must not kill us. (Handled, not
	// ignored: that would be inherited.)
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, unix.SIGPIPE)
	defer signal.Stop(broken)

	upgrade := make(chan os.Signal, 1)
	signal.Notify(upgrade, unix.SIGUSR2)
	defer signal.Stop(upgrade)

	// children that end before recover knows them
	d.reaper.begin()
	wg.Go(func() { d.reaper.run(stop) })
	d.recover(inherited)
	d.reaper.end()
	protect(d.log)
	if d.cfg.Ready != nil && inherited == nil {
		d.cfg.Ready()
	}

	d.log.Info("monitor is ready", "socket", d.cfg.Socket, "containers", len(d.containers))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { d.listen.sock.Close() })()

	wg.Go(func() {
		for {
			select {
			case <-d.dismissed:
				cancel()
				return
			case <-upgrade:
				d.log.Error("upgrade", "err", d.upgrade())
				signal.Notify(upgrade, unix.SIGUSR2)
			case <-stop:
				return
			}
		}
	})

	for {
		conn, err := d.listen.sock.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}

			return fmt.Errorf("accept on %s: %w", d.cfg.Socket, err)
		}

		go d.serve(conn)
	}
}

// lookup finds a container.
func (d *Daemon) lookup(id string) (*container, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, wire.ErrNotFound)
}

// all returns the containers as they are now.
func (d *Daemon) all() []*container {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.containers))
}

// tell sends an event to every greeted client.
func (d *Daemon) tell(m wire.Message) {
	d.mu.Lock()
	sessions := slices.Collect(maps.Keys(d.sessions))
	d.mu.Unlock()
	for _, s := range sessions {
		s.event(m)
	}
}

// protect keeps the OOM killer away from the one process that all containers of the node hang on. Where the
// privilege is missing, the value stays as it is.
func protect(log *slog.Logger) {
	const score = "-999"
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0); err != nil {
		log.Debug("oom_score_adj stays as it is", "err", err)
	}
}

// takeInherited reads, once, which descriptors came over an execve, by name.
func takeInherited(stateDir string) (map[string]int, error) {
	path := filepath.Join(stateDir, inheritFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)

	var record inheritance
	if err := json.Unmarshal(data, &record); err != nil {
		return nil, err
	}

	if record.Pid != os.Getpid() || os.Getenv(inheritEnv) == "" {
		// of a monitor that was killed just before its execve
		return nil, nil
	}

	for _, fd := range record.Fds {
		unix.CloseOnExec(fd)
	}

	return record.Fds, nil
}
