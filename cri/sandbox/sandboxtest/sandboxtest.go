// Package sandboxtest gives tests a machine without a kernel: what a sandbox.Service makes of namespaces,
// mounts, processes and network attachments is kept in memory, and each step can be made to fail.
package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Machine is a sandbox.Kernel, a sandbox.Processes and a sandbox.Network. Its operations are named as its
// methods.
type Machine struct {
	mu      sync.Mutex // guards all below
	failing map[string]error
	steps   []string
	things  map[string]bool
	pids    int
}

// NewMachine returns a machine that has nothing yet.
func NewMachine() *Machine {
	return &Machine{failing: map[string]error{}, things: map[string]bool{}}
}

// FailOn makes an operation fail with err until it is called again with nil.
func (m *Machine) FailOn(operation string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failing[operation] = err
}

// Steps returns the operations until now, and forgets them.
func (m *Machine) Steps() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	steps := m.steps
	m.steps = nil
	return steps
}

// Left returns what was made and not removed, such as "process pause-ID", in alphabetical order.
func (m *Machine) Left() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var left []string
	for thing := range m.things {
		left = append(left, thing)
	}
	slices.Sort(left)
	return left
}

// Kill ends a process without telling anybody.
func (m *Machine) Kill(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.things, "process "+id)
}

// do is one operation: it makes things (+), or removes them (-), unless it fails.
func (m *Machine) do(operation string, changes ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	m.steps = append(m.steps, operation)
	if err := m.failing[operation]; err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}

	for _, change := range changes {
		if thing, removed := strings.CutPrefix(change, "-"); removed {
			delete(m.things, thing)
		} else {
			m.things[change] = true
		}
	}

	return nil
}

// CreateNamespaces pins namespaces; inside is not called.
func (m *Machine) CreateNamespaces(
	pins map[namespace.Kind]string, users *namespace.Users, _ func() error,
) error {
	var made []string
	if users != nil {
		made = append(made, "pin "+filepath.Base(users.Path))
	}
	for _, path := range pins {
		made = append(made, "pin "+filepath.Base(path))
	}
	return m.do("CreateNamespaces", made...)
}

// PinPID pins a PID namespace.
func (m *Machine) PinPID(_ int, path string) error { return m.do("PinPID", "pin "+filepath.Base(path)) }

// Unpin removes a pin.
func (m *Machine) Unpin(path string) error { return m.do("Unpin", "-pin "+filepath.Base(path)) }

// InNamespace does not call f.
func (m *Machine) InNamespace(string, func() error) error { return m.do("InNamespace") }

// MountShm mounts a /dev/shm.
func (m *Machine) MountShm(string, int) error { return m.do("MountShm", "shm") }

// Unmount unmounts it.
func (m *Machine) Unmount(string) error { return m.do("Unmount", "-shm") }

// Create makes a process.
func (m *Machine) Create(_ context.Context, c monitor.Container) (int, error) {
	err := m.do("Create", "process "+c.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pids++
	return m.pids, err
}

// Start starts its program.
func (m *Machine) Start(context.Context, string) error { return m.do("Start") }

// Delete kills a process.
func (m *Machine) Delete(_ context.Context, id string) error { return m.do("Delete", "-process "+id) }

// Lives reports whether a process was made and not killed.
func (m *Machine) Lives(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.things["process "+id]
}

// Setup joins a pod to the network, with the address 10.0.0.2.
func (m *Machine) Setup(_ context.Context, a network.Attachment) ([]netip.Addr, error) {
	if err := m.do("Setup", "network "+a.ID); err != nil {
		return nil, err
	}
	return []netip.Addr{netip.MustParseAddr("10.0.0.2")}, nil
}

// Teardown releases it.
func (m *Machine) Teardown(_ context.Context, a network.Attachment) error {
	return m.do("Teardown", "-network "+a.ID)
}

// ErrBroken is an error for FailOn.
var ErrBroken = errors.New("broken")

// NoUsers is the handler whose pods cannot have user namespaces.
const NoUsers = "no-users"

// Open opens the sandboxes of a machine below dir. Opened a second time for the same dir, they are those of
// a server that was started again.
func Open(tb testing.TB, dir string, m *Machine, events *event.Hub) *sandbox.Service {
	tb.Helper()
	sandboxes, err := sandbox.Open(tb.Context(), sandbox.Config{
		Dir:         filepath.Join(dir, "sandboxes"),
		FilesDir:    filepath.Join(dir, "files"),
		Network:     m,
		Processes:   m,
		Kernel:      m,
		InitProgram: "/usr/bin/trivet-monitor",
		Handlers:    ociruntime.Handlers{"": {}, NoUsers: {NoUsers: errors.New("too old for it")}},
		Events:      events,
		Log:         slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}

	return sandboxes
}

// Pod returns the configuration of a pod with namespaces of its own, whose containers share a PID namespace
// if sharesPID is true.
func Pod(name string, sharesPID bool) *runtimeapi.PodSandboxConfig {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if sharesPID {
		options.Pid = runtimeapi.NamespaceMode_POD
	}

	return &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Namespace: "test", Uid: "uid-" + name},
		Hostname: name,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			Sysctls: map[string]string{"net.ipv4.ip_forward": "1"},
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: options,
			},
		},
	}
}
