// Package machine makes a machine out of namespaces: its own network, mounts, processes, host name,
// IPC and cgroups, on the kernel and the files of the host. Its PID 1 is this program; it starts daemons when
// asked over a socket, reaps what is left to it, and takes everything with it when it ends. Nothing of the
// host changes: /etc, /opt and /var are overlays on a tmpfs, /run is empty, and what must survive a reboot
// lies in the machine's own directory.
package machine

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
)

// Config of a machine. It is written to config.json in its directory, where its PID 1 reads it.
type Config struct {
	Name   string
	Init   string            `json:",omitempty"` // PID 1: "" for this package's own, or Systemd
	Group  string            // cgroup, from the hierarchies' roots
	Hosts  string            // content of /etc/hosts
	Keep   []string          // directories that survive a reboot: /var/lib/kubelet, ...
	Expose map[string]string // directory or file of the host -> path inside, read-write
	Cover  []string          `json:",omitempty"` // directories that are overlays, as /etc, /opt and /var are
	Disks  []Disk            `json:",omitempty"` // file systems of its own
	Memory int64             `json:",omitempty"` // bytes that all its processes together may have; 0: any

	// Packages says that Systemd loads the units of packages that are installed on the machine. None of the
	// host's is there.
	Packages bool `json:",omitempty"`
}

// Machine is a handle; the machine itself lives in its processes.
type Machine struct {
	Name string
	Dir  string // absolute
}

// At is the machine that lives, or may come to live, in dir.
func At(dir string) *Machine { return &Machine{Name: filepath.Base(dir), Dir: dir} }

func (m *Machine) path(elem ...string) string {
	return filepath.Join(append([]string{m.Dir}, elem...)...)
}

// namespaces are those that a machine has of its own from the start; its cgroup namespace comes later.
const namespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
	syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// bootLimit bounds a boot, which takes some 50 ms.
const bootLimit = time.Minute

// Boot starts the machine unless it runs, and returns when its PID 1 takes requests. A boot gives it a new
// boot ID.
func (m *Machine) Boot(ctx context.Context, c Config) error {
	if m.Pid() != 0 {
		return nil
	}
	if err := m.prepare(c); err != nil {
		return err
	}

	// A machine whose record was lost may have left something.
	if err := Sweep(ctx, c.Group); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}

	devices, err := attachAll(ctx, c.Disks, m.Dir)
	if err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}
	defer closeAll(devices)

	self, err := os.Executable()
	if err != nil {
		return err
	}

	log, err := os.OpenFile(m.path("log", "init.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()

	// Not bound to ctx: the machine outlives this process.
	cmd := exec.Command(self, bootVerb, m.Dir)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = m.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: namespaces}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}

	id := identity(cmd.Process.Pid)
	if err := durable.WriteVolatile(m.path("pid"), []byte(id), 0o644); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}

	ctx, cancel := context.WithTimeoutCause(
		ctx,
		bootLimit,
		fmt.Errorf("its PID 1 takes no requests after %s", bootLimit),
	)
	defer cancel()

	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	if err := m.awaitInit(ctx, died); err != nil {
		_ = cmd.Process.Kill()
		return fmt.Errorf("boot %s: %w", m.Name, err)
	}

	return nil
}

func (m *Machine) prepare(c Config) error {
	for _, d := range []string{"log", "keep", "scratch"} {
		if err := os.MkdirAll(m.path(d), 0o755); err != nil {
			return err
		}
	}

	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteVolatile(m.path("config.json"), data, 0o644); err != nil {
		return err
	}

	return durable.WriteVolatile(m.path("boot_id"), []byte(newUUID()+"\n"), 0o444)
}

// BootID is what the machine's processes read in /proc/sys/kernel/random/boot_id; "" before its first boot.
func (m *Machine) BootID() string {
	data, err := os.ReadFile(m.path("boot_id"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (m *Machine) awaitInit(ctx context.Context, died <-chan error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for {
		if _, err := m.List(); err == nil {
			return nil
		}

		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-died:
			return fmt.Errorf("its PID 1 ended (%w): %s", err, lastLine(m.path("log", "init.log")))
		case <-tick.C:
		}
	}
}

// Pid is the host's PID of the machine's PID 1; 0 when the machine is down. A PID that was reused by another
// process does not count.
func (m *Machine) Pid() int {
	data, err := os.ReadFile(m.path("pid"))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.SplitN(string(data), " ", 2)[0])
	if pid == 0 || identity(pid) != string(data) {
		return 0
	}
	return pid
}

// identity is "PID STARTTIME", or "" for a process that is gone or a zombie.
func identity(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, after, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if !ok || len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fmt.Sprintf("%d %s", pid, fields[19])
}

// Halt ends the machine as a power cut would: all its processes at once. Then its cgroups are removed. A
// machine that is down stays down.
func (m *Machine) Halt(ctx context.Context) error {
	if pid := m.Pid(); pid != 0 {
		if err := endProcess(ctx, pid); err != nil {
			return fmt.Errorf("halt %s: %w", m.Name, err)
		}
	}

	c, err := readConfig(m.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		// It was never booted.
		return nil
	}

	if err != nil {
		return fmt.Errorf("halt %s: %w", m.Name, err)
	}
	if err := Sweep(ctx, c.Group); err != nil {
		return fmt.Errorf("halt %s: %w", m.Name, err)
	}

	err = os.Remove(m.path("pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	return err
}

// endProcess kills PID 1 of a PID namespace; the kernel ends all others before the pidfd becomes readable.
func endProcess(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}

	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Sweep ends whatever is in a cgroup or below it, and removes it: a machine is found by it whose record was
// lost or never written. It runs in a process of its own with private mounts, because hierarchies that the
// host has not mounted (hugetlb) are mounted for it.
func Sweep(ctx context.Context, group string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, sweepVerb, group)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("remove cgroup %s: %w: %s", group, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Command is a command that runs inside the machine, in all its namespaces.
func (m *Machine) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	pid := m.Pid()
	if pid == 0 {
		return nil, fmt.Errorf("machine %s is down", m.Name)
	}

	c, err := readConfig(m.Dir)
	if err != nil {
		return nil, err
	}
	line, err := visit(c.Group)
	if err != nil {
		return nil, err
	}

	line = append(line, "nsenter", "--target", strconv.Itoa(pid),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name)
	line = append(line, args...)
	return exec.CommandContext(ctx, line[0], line[1:]...), nil
}

func lastLine(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(data))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
