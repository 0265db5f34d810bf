package daemonmetric

import (
	"context"
	"net/netip"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/sandbox"
	kernel "github.com/trivet-node/trivet/internal/namespace"
)

// The steps, in the order of a pod's start.
const (
	stepNamespaces = "namespaces"
	stepNetwork    = "network_setup"
	stepRootfs     = "rootfs"
	stepCreate     = "runtime_create"
	stepStart      = "runtime_start"
	stepDelete     = "runtime_delete"
	stepRelease    = "network_teardown"
)

// Kernel measures how long the namespaces of sandboxes take.
func (s *Set) Kernel(k sandbox.Kernel) sandbox.Kernel { return measuredKernel{k, s} }

type measuredKernel struct {
	sandbox.Kernel
	set *Set
}

// CreateNamespaces implements sandbox.Kernel.
func (m measuredKernel) CreateNamespaces(
	pins map[kernel.Kind]string, users *kernel.Users, inside func() error,
) error {
	began := time.Now()
	err := m.Kernel.CreateNamespaces(pins, users, inside)
	m.set.step(stepNamespaces, began, err)
	return err
}

// Network measures how long the network of sandboxes takes, and counts the calls of CNI.
func (s *Set) Network(n sandbox.Network) sandbox.Network { return measuredNetwork{n, s} }

type measuredNetwork struct {
	sandbox.Network
	set *Set
}

// Setup implements sandbox.Network.
func (m measuredNetwork) Setup(ctx context.Context, a network.Attachment) ([]netip.Addr, error) {
	began := time.Now()
	addresses, err := m.Network.Setup(ctx, a)
	m.set.step(stepNetwork, began, err)
	m.set.cni.WithLabelValues("ADD", cniCode(err)).Inc()
	return addresses, err
}

// Teardown implements sandbox.Network.
func (m measuredNetwork) Teardown(ctx context.Context, a network.Attachment) error {
	began := time.Now()
	err := m.Network.Teardown(ctx, a)
	m.set.step(stepRelease, began, err)
	m.set.cni.WithLabelValues("DEL", cniCode(err)).Inc()
	return err
}

// cniCode returns the code of an error of a plugin, "0" for none and "other" for what is not one of CNI. A
// plugin chooses its codes: those that CNI does not reserve (100 and more) are one, so that it cannot make
// new figures without end.
func cniCode(err error) string {
	if err == nil {
		return "0"
	}
	code, ok := network.ErrorCode(err)
	switch {
	case !ok:
		return "other"
	case code >= 100:
		return "plugin"
	}
	return strconv.FormatUint(uint64(code), 10)
}

// Bundles measures how long root file systems take: the overlay of an image's layers and all that the
// specification of a container depends on.
func (s *Set) Bundles(b container.Bundles) container.Bundles { return measuredBundles{b, s} }

type measuredBundles struct {
	container.Bundles
	set *Set
}

// Make implements container.Bundles.
func (m measuredBundles) Make(ctx context.Context, r bundle.Request) (bundle.Bundle, error) {
	began := time.Now()
	made, err := m.Bundles.Make(ctx, r)
	m.set.step(stepRootfs, began, err)
	return made, err
}

// Processes measures how long the OCI runtime takes.
func (s *Set) Processes(p container.Processes) container.Processes { return measuredProcesses{p, s} }

type measuredProcesses struct {
	container.Processes
	set *Set
}

// Create implements container.Processes.
func (m measuredProcesses) Create(ctx context.Context, c monitor.Container) (int, error) {
	began := time.Now()
	pid, err := m.Processes.Create(ctx, c)
	m.set.step(stepCreate, began, err)
	return pid, err
}

// Start implements container.Processes.
func (m measuredProcesses) Start(ctx context.Context, id string) error {
	began := time.Now()
	err := m.Processes.Start(ctx, id)
	m.set.step(stepStart, began, err)
	return err
}

// Delete implements container.Processes.
func (m measuredProcesses) Delete(ctx context.Context, id string) error {
	began := time.Now()
	err := m.Processes.Delete(ctx, id)
	m.set.step(stepDelete, began, err)
	return err
}
