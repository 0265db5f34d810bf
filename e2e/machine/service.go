package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// serviceCall bounds a call of systemctl.
const serviceCall = time.Minute

const serviceSuffix = ".service"

// daemonKey begins the line of a unit that has the Daemon. systemd ignores keys that begin with X-.
const daemonKey = "X-Daemon="

// reporting are the programs that say to systemd when they serve, and that they are alive.
var reporting = []string{"trivet-cri", "trivet-csi", "trivet-netd", "trivet-node"}

// unitText is the service of a daemon: a daemon that ends stays ended, and what it has left (trivet-monitor,
// shims) outlives it.
func unitText(d Daemon, log string) (string, error) {
	// In one line of its own, to be read again when it is asked how the daemon was started.
	daemon, err := json.Marshal(d)
	if err != nil {
		return "", err
	}

	var quoted, env []string
	for _, a := range d.Argv {
		quoted = append(quoted, quote(strings.ReplaceAll(a, "$", "$$")))
	}

	for _, e := range append([]string{"HOME=/", "LANG=C.UTF-8"}, d.Env...) {
		env = append(env, "Environment="+quote(e))
	}

	// Ours are supervised as their units in deploy have it.
	supervised := "Type=exec"
	if slices.Contains(reporting, filepath.Base(d.Argv[0])) {
		supervised = "Type=notify\nWatchdogSec=60"
	}

	return strings.Join([]string{
		"[Unit]",
		"DefaultDependencies=no",
		"StartLimitIntervalSec=0",
		daemonKey + string(daemon),
		"[Service]",
		supervised,
		"ExecStart=" + strings.Join(quoted, " "),
		strings.Join(env, "\n"),
		"KillMode=process",
		"Delegate=yes",
		"OOMPolicy=continue",
		"StandardOutput=append:" + log,
		"StandardError=append:" + log,
		"",
	}, "\n"), nil
}

// quote makes one word of systemd.syntax(7).
func quote(word string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`).Replace(word) + `"`
}

func (s services) start(d Daemon) error {
	ctx, cancel := context.WithTimeout(context.Background(), serviceCall)
	defer cancel()

	text, err := unitText(d, s.path("log", d.Name+".log"))
	if err != nil {
		return err
	}

	file := s.root(filepath.Join(daemonUnits, d.Name+serviceSuffix))
	if old, err := os.ReadFile(file); err != nil || string(old) != text {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if _, err := s.systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
	}

	_, err = s.systemctl(ctx, "start", d.Name+serviceSuffix)
	return err
}

// end sends a signal to the daemon alone, after the grace SIGKILL, and waits until it is gone.
func (s services) end(name string, signal unix.Signal, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace+serviceCall)
	defer cancel()

	if err := s.signal(ctx, name, signal); err != nil {
		return err
	}

	kill := time.After(grace)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()

	for {
		state, err := s.state(ctx, name)
		if err != nil || state.Pid == 0 {
			return err
		}

		select {
		case <-kill:
			if err := s.signal(ctx, name, unix.SIGKILL); err != nil {
				return err
			}

		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s services) signal(ctx context.Context, name string, signal unix.Signal) error {
	state, err := s.state(ctx, name)
	if err != nil || state.Pid == 0 {
		return err
	}

	number := "--signal=" + strconv.Itoa(int(signal))
	_, err = s.systemctl(ctx, "kill", "--kill-who=main", number, name+serviceSuffix)
	if err != nil {
		if now, again := s.state(ctx, name); again == nil && now.Pid == 0 {
			// It has ended meanwhile.
			return nil
		}
	}

	return err
}

func (s services) list() ([]State, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(context.Background(), serviceCall)
	defer cancel()

	entries, err := os.ReadDir(s.root(daemonUnits))
	if err != nil {
		return nil, err
	}

	var out []State
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), serviceSuffix)
		if !ok {
			continue
		}

		state, err := s.state(ctx, name)
		if err != nil {
			return nil, err
		}

		out = append(out, state)
	}

	return out, nil
}

// state asks systemd how the daemon is, and its unit how it was started.
func (s services) state(ctx context.Context, name string) (State, error) {
	state := State{Name: name}
	text, err := os.ReadFile(s.root(filepath.Join(daemonUnits, name+serviceSuffix)))
	if errors.Is(err, fs.ErrNotExist) {
		return state, fmt.Errorf("no daemon is called %q", name)
	}
	if err != nil {
		return state, err
	}

	for line := range strings.Lines(string(text)) {
		if text, ok := strings.CutPrefix(line, daemonKey); ok {
			var d Daemon
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				return state, err
			}

			state.Argv, state.Env = d.Argv, d.Env
		}
	}

	out, err := s.systemctl(ctx, "show", "--property=MainPID,ExecMainCode,ExecMainStatus", name+serviceSuffix)
	if err != nil {
		return state, err
	}

	values := map[string]int{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		values[key], _ = strconv.Atoi(value)
	}

	state.Pid = values["MainPID"]
	switch values["ExecMainCode"] {
	case 1:
		// CLD_EXITED
		state.Exit = fmt.Sprintf("exit code %d", values["ExecMainStatus"])
	case 2, 3:
		// CLD_KILLED, CLD_DUMPED
		state.Exit = "signal " + unix.Signal(values["ExecMainStatus"]).String()
	}

	return state, nil
}
