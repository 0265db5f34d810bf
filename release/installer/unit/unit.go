// Package unit starts, stops and looks at systemd's units by systemctl, which every machine with systemd has:
// the one of the host, also from a container that has the host's file system.
package unit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Host is a machine with systemd.
type Host struct {
	// Root is where its file system is; empty: /.
	Root string
}

// limit bounds a call: a service may take its time to stop.
const limit = 2 * time.Minute

// systemctl runs it in the host's file system and returns what it prints.
func (h Host) systemctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/systemctl", args...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	cmd.WaitDelay = time.Second
	if h.Root != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: h.Root}
		cmd.Dir = "/"

		// It would refuse to work, because the root is not that of this container's PID 1.
		cmd.Env = append(cmd.Env, "SYSTEMD_IGNORE_CHROOT=1")
	}

	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(said.String() + string(out))
		return "", fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, text)
	}
	return string(out), nil
}

func (h Host) do(ctx context.Context, args ...string) error {
	_, err := h.systemctl(ctx, append([]string{"--quiet"}, args...)...)
	return err
}

// Start starts a unit and waits for it.
func (h Host) Start(ctx context.Context, unit string) error { return h.do(ctx, "start", unit) }

// StartSoon has a unit started without waiting for it.
func (h Host) StartSoon(ctx context.Context, unit string) error {
	return h.do(ctx, "start", "--no-block", unit)
}

// Stop stops a unit and waits for it. One that there is not is a success.
func (h Host) Stop(ctx context.Context, unit string) error {
	if exists, err := h.Exists(ctx, unit); err != nil || !exists {
		return err
	}
	return h.do(ctx, "stop", unit)
}

// RestartSoon has a unit started again without waiting for it.
func (h Host) RestartSoon(ctx context.Context, unit string) error {
	return h.do(ctx, "restart", "--no-block", unit)
}

// Kill kills all processes of a unit.
func (h Host) Kill(ctx context.Context, unit string) error {
	return h.do(ctx, "kill", "--kill-who=all", "--signal=KILL", unit)
}

// Enable has a unit started with the machine. As Reload, it has systemd read the files of units again.
func (h Host) Enable(ctx context.Context, unit string) error { return h.do(ctx, "enable", unit) }

// Disable has a unit not started with the machine.
func (h Host) Disable(ctx context.Context, unit string) error { return h.do(ctx, "disable", unit) }

// Reload has systemd read the files of units again.
func (h Host) Reload(ctx context.Context) error { return h.do(ctx, "daemon-reload") }

// Property is one of a unit, as systemctl show prints it. Units that there are not have properties, too.
func (h Host) Property(ctx context.Context, unit, name string) (string, error) {
	out, err := h.systemctl(ctx, "show", "--property="+name, unit)
	value := strings.TrimPrefix(strings.TrimSpace(out), name+"=")
	return value, err
}

// Exists reports whether there is a file of the unit.
func (h Host) Exists(ctx context.Context, unit string) (bool, error) {
	state, err := h.Property(ctx, unit, "LoadState")
	return state != "not-found", err
}

// Active reports whether a unit runs, or is about to.
func (h Host) Active(ctx context.Context, unit string) (bool, error) {
	state, err := h.Property(ctx, unit, "ActiveState")
	return state == "active" || state == "activating" || state == "reloading", err
}

// Enabled reports whether a unit starts with the machine.
func (h Host) Enabled(ctx context.Context, unit string) (bool, error) {
	state, err := h.Property(ctx, unit, "UnitFileState")
	return state == "enabled", err
}

// Process is the main process of a unit that is active; zero: it has none, or is not.
func (h Host) Process(ctx context.Context, unit string) (int, error) {
	state, err := h.Property(ctx, unit, "ActiveState")
	if err != nil || state != "active" {
		return 0, err
	}
	return h.pid(ctx, unit)
}

// Starts is the program that the next start of a unit executes.
func (h Host) Starts(ctx context.Context, unit string) (string, error) {
	text, err := h.Property(ctx, unit, "ExecStart")
	if err != nil {
		return "", err
	}
	return startedBy(text)
}

// Program is the file that the main process of a unit executes; empty: it has none. One that was replaced
// since ends with " (deleted)".
func (h Host) Program(ctx context.Context, unit string) (string, error) {
	pid, err := h.pid(ctx, unit)
	if err != nil || pid == 0 {
		return "", err
	}

	program, err := os.Readlink(filepath.Join("/", h.Root, "proc", strconv.Itoa(pid), "exe"))
	if err != nil {
		return "", nil
	}
	return program, nil
}

// Arguments is the command line of the main process of a unit.
func (h Host) Arguments(ctx context.Context, unit string) ([]string, error) {
	pid, err := h.pid(ctx, unit)
	if err != nil || pid == 0 {
		return nil, err
	}

	data, err := os.ReadFile(filepath.Join("/", h.Root, "proc", strconv.Itoa(pid), "cmdline"))
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"), err
}

func (h Host) pid(ctx context.Context, unit string) (int, error) {
	text, err := h.Property(ctx, unit, "MainPID")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// Of is the service that a process belongs to; empty: none.
func (h Host) Of(pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join("/", h.Root, "proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", err
	}

	for line := range strings.Lines(string(data)) {
		for name := range strings.SplitSeq(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(name, ".service") {
				return name, nil
			}
		}
	}
	return "", nil
}

// Text is all files of a unit, each below a comment with its path.
func (h Host) Text(ctx context.Context, unit string) (string, error) {
	return h.systemctl(ctx, "cat", unit)
}

// Users are the services that are active and want or require a unit.
func (h Host) Users(ctx context.Context, unit string) (active []string, err error) {
	for _, relation := range []string{"RequiredBy", "WantedBy", "BoundBy"} {
		names, err := h.Property(ctx, unit, relation)
		if err != nil {
			return nil, err
		}

		for name := range strings.FieldsSeq(names) {
			if !strings.HasSuffix(name, ".service") {
				continue
			}
			if runs, err := h.Active(ctx, name); err != nil {
				return nil, err
			} else if runs {
				active = append(active, name)
			}
		}
	}
	return active, nil
}
