package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is a program that the machine's PID 1 runs; its output goes to log/NAME.log of the machine's
// directory.
type Daemon struct {
	Name string
	Argv []string
	Env  []string // added to a short environment with PATH, or in place of what is there
}

// State of a daemon.
type State struct {
	Name    string
	Argv    []string
	Env     []string `json:",omitempty"`
	Pid     int      // in the machine's PID namespace; 0 when it does not run
	Exit    string
	HostPid int `json:"-"` // filled in by the caller's side
}

type request struct {
	Do     string // start, end, list
	Daemon Daemon
	Signal int
	Grace  time.Duration
}

type response struct {
	Error  string
	States []State
}

// supervisor starts and ends the daemons of a machine.
type supervisor interface {
	start(d Daemon) error
	end(name string, signal unix.Signal, grace time.Duration) error
	list() ([]State, error)
}

func (m *Machine) supervisor() supervisor {
	if c, err := readConfig(m.Dir); err == nil && c.Init == Systemd {
		return services{m}
	}
	return children{m}
}

// Start starts the daemon unless one of this name runs.
func (m *Machine) Start(d Daemon) error {
	if d.Name == "" || strings.ContainsRune(d.Name, '/') || len(d.Argv) == 0 {
		return fmt.Errorf("daemon %q: it needs a plain name and a command", d.Name)
	}
	return m.supervisor().start(d)
}

// Stop ends the daemon with SIGTERM, after the grace with SIGKILL, and returns when it is gone.
func (m *Machine) Stop(name string, grace time.Duration) error {
	return m.supervisor().end(name, unix.SIGTERM, grace)
}

// Kill ends the daemon with SIGKILL and returns when it is gone.
func (m *Machine) Kill(name string) error { return m.supervisor().end(name, unix.SIGKILL, 0) }

// Restart starts a daemon that has ended again, as it was started at first.
func (m *Machine) Restart(name string) error {
	states, err := m.List()
	if err != nil {
		return err
	}

	for _, s := range states {
		if s.Name == name {
			return m.Start(Daemon{Name: s.Name, Argv: s.Argv, Env: s.Env})
		}
	}
	return fmt.Errorf("machine %s: no daemon is called %q", m.Name, name)
}

// KillProgram ends a daemon, or all processes of a program that a daemon has started (trivet-monitor), with
// SIGKILL.
func (m *Machine) KillProgram(name string) error {
	states, err := m.List()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(states, func(s State) bool { return s.Name == name }) {
		return m.Kill(name)
	}

	pids := m.Find(name)
	if len(pids) == 0 {
		return fmt.Errorf("machine %s: nothing that is called %q runs", m.Name, name)
	}

	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill %s of machine %s: %w", name, m.Name, err)
		}
	}

	return nil
}

// LogFile is the path of a daemon's log.
func (m *Machine) LogFile(daemon string) string { return m.path("log", filepath.Base(daemon)+".log") }

// List returns the states of all daemons that were started since the boot.
func (m *Machine) List() ([]State, error) {
	states, err := m.supervisor().list()
	if err != nil {
		return nil, err
	}
	host := m.hostPids()
	for i, s := range states {
		states[i].HostPid = host[s.Pid]
	}
	return states, nil
}

// children supervises daemons as children of the machine's PID 1, which this package is, too.
type children struct{ *Machine }

func (c children) start(d Daemon) error {
	_, err := c.ask(request{Do: "start", Daemon: d})
	return err
}

func (c children) end(name string, signal unix.Signal, grace time.Duration) error {
	_, err := c.ask(request{
		Do:     "end",
		Daemon: Daemon{Name: name},
		Signal: int(signal),
		Grace:  grace,
	})
	return err
}

func (c children) list() ([]State, error) {
	r, err := c.ask(request{Do: "list"})
	return r.States, err
}

func (m children) ask(q request) (response, error) {
	var r response
	dir, err := os.Open(m.Dir)
	if err != nil {
		return r, err
	}
	defer dir.Close()
	// A socket's path may have 107 bytes; a checkout can lie deeper.
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/ctl", dir.Fd()))
	if err != nil {
		return r, fmt.Errorf("machine %s does not answer: %w", m.Name, err)
	}
	defer conn.Close()

	if err := json.NewEncoder(conn).Encode(q); err != nil {
		return r, err
	}
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return r, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("machine %s: %s", m.Name, r.Error)
	}

	return r, nil
}

// hostPids maps PIDs of the machine's PID namespace to the host's.
func (m *Machine) hostPids() map[int]int {
	init := m.Pid()
	if init == 0 {
		return nil
	}

	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", init))
	if err != nil {
		return nil
	}

	out := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		if ns, err := os.Readlink(d + "/ns/pid"); err != nil || ns != own {
			continue
		}

		status, err := os.ReadFile(d + "/status")
		if err != nil {
			continue
		}

		for line := range strings.Lines(string(status)) {
			rest, ok := strings.CutPrefix(line, "NSpid:")
			if pids := strings.Fields(rest); ok && len(pids) > 1 {
				inner, _ := strconv.Atoi(pids[len(pids)-1])
				outer, _ := strconv.Atoi(pids[0])
				out[inner] = outer
			}
		}
	}

	return out
}

// Processes lists the host's PIDs of the machine's processes by the name of the program that they run, except
// in PID namespaces below the machine's own: those of its daemons and their helpers, not those of containers.
func (m *Machine) Processes() map[string][]int {
	out := map[string][]int{}
	for _, pid := range m.hostPids() {
		argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if name, _, _ := strings.Cut(string(argv), "\x00"); err == nil && name != "" {
			out[filepath.Base(name)] = append(out[filepath.Base(name)], pid)
		}
	}
	return out
}

// Find lists the host's PIDs of the machine's processes that run the named program, except in PID namespaces
// below the machine's own.
func (m *Machine) Find(program string) []int {
	return m.Processes()[program]
}
