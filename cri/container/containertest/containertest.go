// Package containertest gives tests of containers a monitor, bundles and images without a kernel. They keep
// in memory what was made of them, and each step can be made to fail.
package containertest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/monitor"
)

// Node is a container.Processes, container.Inventory, container.Bundles and container.Images. Its operations
// are named as its methods.
type Node struct {
	// Exited is called with the exit of each process that Kill or Delete ends; not if it is nil.
	Exited func(monitor.Exit)

	// Creating is called for each process when it exists and Create has not returned yet; not if it is nil.
	Creating func(id string)

	// Image is the image that Get finds under any name.
	Image image.Image

	// Deaf is how many signals but SIGKILL go unnoticed.
	Deaf int

	mu        sync.Mutex // guards all below
	failing   map[string]error
	once      map[string]error
	steps     []string
	processes map[string]monitor.Status
	started   map[string]bool
	bundles   map[string]bool
	updated   map[string][]*specs.LinuxResources
	ignored   unix.Signal
}

// NewNode returns a node that has nothing yet.
func NewNode() *Node {
	return &Node{
		Image: image.Image{
			ID:     "sha256:1234",
			Tags:   []string{"registry.example/app:1"},
			Config: imagespec.Image{},
		},
		failing:   map[string]error{},
		once:      map[string]error{},
		processes: map[string]monitor.Status{},
		started:   map[string]bool{},
		bundles:   map[string]bool{},
		updated:   map[string][]*specs.LinuxResources{},
	}
}

// FailOn makes an operation fail with err until it is called again with nil.
func (n *Node) FailOn(operation string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failing[operation] = err
}

// FailOnce makes the next call of an operation fail.
func (n *Node) FailOnce(operation string, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.once[operation] = err
}

// Ignore makes processes survive a signal.
func (n *Node) Ignore(signal unix.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ignored = signal
}

// Steps returns the operations until now, and forgets them.
func (n *Node) Steps() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	steps := n.steps
	n.steps = nil
	return steps
}

// Left returns what was made and not removed, such as "bundle ID", in alphabetical order.
func (n *Node) Left() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var left []string
	for id := range n.processes {
		left = append(left, "process "+id)
	}
	for id := range n.bundles {
		left = append(left, "bundle "+id)
	}
	slices.Sort(left)
	return left
}

// LoseProcess makes the monitor forget a process, as when it was killed together with the server.
func (n *Node) LoseProcess(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.processes, id)
}

// End ends a process with an exit that is not reported, as while no server runs.
func (n *Node) End(e monitor.Exit) {
	n.mu.Lock()
	defer n.mu.Unlock()
	status := n.processes[e.ID]
	status.Exit = &e
	n.processes[e.ID] = status
}

// do notes an operation, and fails if it is to.
func (n *Node) do(operation string) error {
	n.steps = append(n.steps, operation)
	err := cmp.Or(n.once[operation], n.failing[operation])
	delete(n.once, operation)
	if err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	return nil
}

// Create makes a process. If it was made to fail with the monitor's ErrRefused, there is none.
func (n *Node) Create(_ context.Context, c monitor.Container) (int, error) {
	n.mu.Lock()
	err := n.do("Create")
	status := monitor.Status{Container: c, Pid: 1000 + len(n.processes)}
	if err == nil {
		n.processes[c.ID] = status
	}

	n.mu.Unlock()

	if err != nil {
		return 0, err
	}
	if n.Creating != nil {
		n.Creating(c.ID)
	}

	return status.Pid, nil
}

// Start lets its program run.
func (n *Node) Start(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.do("Start"); err != nil {
		return err
	}
	n.started[id] = true
	return nil
}

// Started reports whether it was let run.
func (n *Node) Started(_ context.Context, id string) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.started[id], n.do("Started")
}

// Kill ends a process, unless it ignores the signal.
func (n *Node) Kill(id string, signal unix.Signal) error {
	n.mu.Lock()
	err := n.do("Kill")
	if signal != unix.SIGKILL && n.Deaf > 0 {
		n.Deaf--
		err = monitor.ErrUnnoticed
	}

	status, ok := n.processes[id]
	ends := err == nil && ok && status.Exit == nil && signal != n.ignored
	exit := monitor.Exit{ID: id, Code: 128 + int(signal), Signal: signal}
	if ends {
		status.Exit = &exit
		n.processes[id] = status
	}

	n.mu.Unlock()

	if ends && n.Exited != nil {
		n.Exited(exit)
	}

	return err
}

// Delete kills a process and forgets it.
func (n *Node) Delete(_ context.Context, id string) error {
	n.mu.Lock()
	err := n.do("Delete")
	status, ok := n.processes[id]
	ended := err == nil && ok && status.Exit == nil
	if err == nil {
		delete(n.processes, id)
	}

	n.mu.Unlock()

	if ended && n.Exited != nil {
		n.Exited(monitor.Exit{ID: id, Code: 137, Signal: unix.SIGKILL})
	}

	return err
}

// Update keeps what a process was given; see Updates.
func (n *Node) Update(_ context.Context, id string, resources *specs.LinuxResources) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.updated[id] = append(n.updated[id], resources)
	return n.do("Update")
}

// Updates returns the resources of each Update of a process, also of those that failed.
func (n *Node) Updates(id string) []*specs.LinuxResources {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.updated[id])
}

// AwaitUpdates finds none.
func (n *Node) AwaitUpdates(context.Context, string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.do("AwaitUpdates")
}

// ReopenLog changes nothing.
func (n *Node) ReopenLog(context.Context, string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.do("ReopenLog")
}

// List returns the processes that were made and not deleted.
func (n *Node) List() []monitor.Status {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []monitor.Status
	for _, s := range n.processes {
		all = append(all, s)
	}
	return all
}

// Make makes a bundle, also one half of which is left when it fails.
func (n *Node) Make(_ context.Context, r bundle.Request) (bundle.Bundle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range append([]string{r.ID}, bundle.MountIDs(r.ID, r.Container)...) {
		n.bundles[id] = true
	}
	return bundle.Bundle{}, n.do("Make")
}

// Created does nothing.
func (n *Node) Created(context.Context, string) error { return nil }

// Release deletes bundles.
func (n *Node) Release(_ context.Context, ids ...string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.do("Release"); err != nil {
		return err
	}
	for _, id := range ids {
		delete(n.bundles, id)
	}
	return nil
}

// IDs lists the bundles.
func (n *Node) IDs() ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []string
	for id := range n.bundles {
		all = append(all, id)
	}
	return all, nil
}

// AddBundle adds a bundle that no container asked for.
func (n *Node) AddBundle(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bundles[id] = true
}

// Get returns Image, but image.ErrNotFound for a name that begins with "absent".
func (n *Node) Get(name string) (image.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if strings.HasPrefix(name, "absent") {
		return image.Image{}, fmt.Errorf("%s: %w", name, image.ErrNotFound)
	}
	return n.Image, n.do("Get")
}
