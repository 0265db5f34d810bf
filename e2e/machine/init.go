package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initProcess is PID 1 of a machine.
type initProcess struct {
	dir string

	mu      sync.Mutex // guards daemons, and a start against the reaping of what it started
	daemons map[string]*running
}

type running struct {
	Daemon
	pid  int
	exit string
	done chan struct{} // closed when it has ended
}

func runInit(dir string) error {
	if os.Getpid() != 1 {
		return errors.New(runVerb + " is for PID 1 of a machine only")
	}

	p := &initProcess{dir: dir, daemons: map[string]*running{}}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	// Caught and dropped rather than ignored: the daemons would inherit that, and no shell can trap what was
	// ignored when it started.
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := os.Remove("ctl"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}

	// A relative path: the whole one may be longer than a socket's may be.
	listener, err := net.Listen("unix", "ctl")
	if err != nil {
		return err
	}

	go p.serve(listener)
	for range children {
		p.reap()
	}

	return nil
}

// reap takes in all children that have ended: daemons, and processes whose parent has died.
func (p *initProcess) reap() {
	for {
		var status syscall.WaitStatus
		p.mu.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if pid > 0 {
			p.noteExit(pid, status)
		}

		p.mu.Unlock()
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if pid <= 0 {
			return
		}
	}
}

func (p *initProcess) noteExit(pid int, status syscall.WaitStatus) {
	for _, d := range p.daemons {
		if d.pid != pid {
			continue
		}
		d.pid = 0
		d.exit = fmt.Sprintf("exit code %d", status.ExitStatus())
		if status.Signaled() {
			d.exit = "signal " + status.Signal().String()
		}
		close(d.done)
	}
}

func (p *initProcess) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept:", err)
			return
		}

		go func() {
			defer conn.Close()

			var q request
			if err := json.NewDecoder(conn).Decode(&q); err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(os.Stderr, "request:", err)
				}

				return
			}

			var r response
			if err := p.answer(q, &r); err != nil {
				r.Error = err.Error()
			}

			_ = json.NewEncoder(conn).Encode(r)
		}()
	}
}

func (p *initProcess) answer(q request, r *response) error {
	switch q.Do {
	case "start":
		return p.start(q.Daemon)
	case "end":
		return p.end(q.Daemon.Name, syscall.Signal(q.Signal), q.Grace)
	case "list":
		r.States = p.list()
		return nil
	}
	return fmt.Errorf("unknown request %q", q.Do)
}

func (p *initProcess) start(d Daemon) error {
	log, err := os.OpenFile(
		filepath.Join(p.dir, "log", d.Name+".log"),
		os.O_CREATE|os.O_APPEND|os.O_WRONLY,
		0o644,
	)
	if err != nil {
		return err
	}
	defer log.Close()

	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()

	p.mu.Lock()
	defer p.mu.Unlock()

	if old := p.daemons[d.Name]; old != nil && old.pid != 0 {
		return nil
	}

	process, err := os.StartProcess(d.Argv[0], d.Argv, &os.ProcAttr{
		Dir:   "/",
		Env:   environment(d.Env),
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", d.Name, err)
	}

	p.daemons[d.Name] = &running{Daemon: d, pid: process.Pid, done: make(chan struct{})}

	// reap waits for it
	return process.Release()
}

// environment has the defaults of every daemon, unless they are among its own variables: of two with one
// name, some programs take the first and some the last.
func environment(own []string) []string {
	env := slices.Clone(own)
	for _, variable := range []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/",
		"LANG=C.UTF-8",
	} {
		name := variable[:strings.IndexByte(variable, '=')+1]
		if !slices.ContainsFunc(own, func(v string) bool { return strings.HasPrefix(v, name) }) {
			env = append(env, variable)
		}
	}

	return env
}

func (p *initProcess) end(name string, sig syscall.Signal, grace time.Duration) error {
	d, err := p.signal(name, sig)
	if err != nil || d == nil {
		return err
	}

	if sig != syscall.SIGKILL {
		select {
		case <-d.done:
			return nil
		case <-time.After(grace):
		}

		if _, err := p.signal(name, syscall.SIGKILL); err != nil {
			return err
		}
	}

	<-d.done
	return nil
}

// signal returns nil when the daemon does not run.
func (p *initProcess) signal(name string, sig syscall.Signal) (*running, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	d := p.daemons[name]
	if d == nil {
		return nil, fmt.Errorf("no daemon is called %q", name)
	}
	if d.pid == 0 {
		return nil, nil
	}
	if err := syscall.Kill(d.pid, sig); err != nil {
		return nil, fmt.Errorf("signal %s: %w", name, err)
	}

	return d, nil
}

func (p *initProcess) list() []State {
	p.mu.Lock()
	defer p.mu.Unlock()

	var out []State
	for _, d := range p.daemons {
		out = append(out, State{
			Name: d.Name,
			Argv: d.Argv,
			Env:  d.Env,
			Pid:  d.pid,
			Exit: d.exit,
		})
	}

	slices.SortFunc(out, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return out
}
