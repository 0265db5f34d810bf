// Package csiplugin finds the CSI drivers of the node. A driver announces itself by a socket in the
// plugins_registry directory (k8s.io/kubelet pluginregistration v1, as for kubelet: node-driver-registrar
// works unchanged). It is asked for its name and node ID, entered into the CSINode object and the node's
// topology labels, and its node service can be called from then on.
package csiplugin

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/metric/rpc"
)

// Publisher shows the cluster which drivers the node has (CSINodes).
type Publisher interface {
	// Add enters a driver, or updates it.
	Add(ctx context.Context, d Info) error
	// Remove takes a driver out that is gone from the node.
	Remove(ctx context.Context, name string) error
}

// Info is what a driver says about itself on this node.
type Info struct {
	Name string

	// NodeID is the driver's name of the node.
	NodeID string

	// MaxVolumes is how many of its volumes the node can have; 0 is no limit.
	MaxVolumes int64

	// Topology is the accessible topology of the node.
	Topology map[string]string
}

// Config is what a Registry needs.
type Config struct {
	// Dir is the directory to watch, /var/lib/kubelet/plugins_registry.
	Dir       string
	Publisher Publisher

	// Changed is called when a driver has come or gone, so that pods which wait for one are looked at again.
	// It must not block.
	Changed func()

	// Options are of the connections to drivers.
	Options []grpc.DialOption
	Log     *slog.Logger

	// Called is told about each call of a driver when it has ended. It may be nil.
	Called func(driver, method string, code codes.Code, took time.Duration)
}

// options are those of a connection to a driver.
func (c Config) options(driver string) []grpc.DialOption {
	if c.Called == nil {
		return c.Options
	}
	return append(rpc.DialOptions(func(method string, code codes.Code, took time.Duration) {
		c.Called(driver, method, code, took)
	}), c.Options...)
}

// Registry knows the drivers that are registered.
type Registry struct {
	cfg Config

	// publish orders the changes of CSINode by driver: what is published last is what is so.
	publish keylock.Locks[string]

	// running are the registrations and withdrawals that are on their way.
	running sync.WaitGroup

	// mu guards what follows.
	mu sync.Mutex

	// drivers are the registered drivers by name.
	drivers map[string]*Driver

	// sockets are the names of the registered drivers by registration socket.
	sockets map[string]string

	// trying has, for each socket that is there, the function that ends the attempts to register what is
	// behind it. An entry stays when the attempts have ended.
	trying map[string]context.CancelFunc
}

// New returns a registry that knows no driver yet.
func New(cfg Config) *Registry {
	return &Registry{
		cfg:     cfg,
		drivers: map[string]*Driver{},
		sockets: map[string]string{},
		trying:  map[string]context.CancelFunc{},
	}
}

// NotRegisteredError says that a driver is not (yet) on the node. The wording is kubelet's.
type NotRegisteredError struct{ Name string }

func (e *NotRegisteredError) Error() string {
	return fmt.Sprintf("driver name %s not found in the list of registered CSI drivers", e.Name)
}

// Driver returns a registered driver or a *NotRegisteredError.
func (r *Registry) Driver(name string) (*Driver, error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if d := r.drivers[name]; d != nil {
		return d, nil
	}
	return nil, &NotRegisteredError{name}
}

// close ends the attempts and the connections to all drivers.
func (r *Registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, cancel := range r.trying {
		cancel()
	}
	for _, d := range r.drivers {
		d.close()
	}
}
