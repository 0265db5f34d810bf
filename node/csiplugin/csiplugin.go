// Package csiplugin finds CSI drivers on the node and calls their node service. A driver announces itself by
// a socket in the plugins_registry directory (k8s.io/kubelet pluginregistration v1, as for kubelet:
// node-driver-registrar works unchanged); it is asked for its name and node ID, entered into the CSINode
// object and the node's topology labels, and can be used from then on.
package csiplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

// Publisher tells the cluster about the drivers (CSINodes).
type Publisher interface {
	// Add enters a driver, or updates it.
	Add(ctx context.Context, d Info) error
	// Remove takes a driver out that is gone from the node.
	Remove(ctx context.Context, name string) error
}

// Info is what a driver says about itself on this node.
type Info struct {
	Name       string
	NodeID     string
	MaxVolumes int64             // 0: no limit
	Topology   map[string]string // accessible topology of the node
}

// Config is what a Registry needs.
type Config struct {
	Dir       string // the directory to watch, /var/lib/kubelet/plugins_registry
	Publisher Publisher
	// called when a driver has come or gone: pods that wait for one look again; must not block
	Changed func()
	Log     *slog.Logger
}

// Registry knows the drivers that are registered.
type Registry struct {
	cfg     Config
	publish keylock.Locks[string] // by driver: what the cluster is told last is what is so

	mu      sync.Mutex         // guards what follows, but running
	drivers map[string]*Driver // by name
	sockets map[string]string  // registration socket -> driver name
	trying  map[string]context.CancelFunc
	running sync.WaitGroup
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

// Run watches the directory until ctx ends. Sockets that are there already are registered first.
func (r *Registry) Run(ctx context.Context) error {
	if err := os.MkdirAll(r.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("plugin directory: %w", err)
	}

	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch plugin directory: %w", err)
	}
	defer watcher.Close()

	if err := watcher.Add(r.cfg.Dir); err != nil {
		return fmt.Errorf("watch plugin directory %s: %w", r.cfg.Dir, err)
	}
	defer r.running.Wait()
	defer r.close()

	r.scan(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch of plugin directory ended")
			}

			r.event(ctx, event)

		case err := <-watcher.Errors:
			// An overflow of the kernel's queue: look at everything again.
			r.cfg.Log.Warn("plugin events were lost", "dir", r.cfg.Dir, "err", err)
			r.scan(ctx)
		}
	}
}

func (r *Registry) event(ctx context.Context, e fsnotify.Event) {
	switch {
	case e.Has(fsnotify.Create):
		r.appeared(ctx, e.Name)
	case e.Has(fsnotify.Remove), e.Has(fsnotify.Rename):
		r.vanished(ctx, e.Name)
	}
}

// scan compares the directory with what is known.
func (r *Registry) scan(ctx context.Context) {
	entries, err := os.ReadDir(r.cfg.Dir)
	if err != nil {
		r.cfg.Log.Warn("cannot list plugins", "dir", r.cfg.Dir, "err", err)
		return
	}

	present := map[string]bool{}
	for _, e := range entries {
		path := filepath.Join(r.cfg.Dir, e.Name())
		present[path] = true
		r.mu.Lock()
		known := r.sockets[path] != "" || r.trying[path] != nil
		r.mu.Unlock()
		if !known {
			r.appeared(ctx, path)
		}
	}

	r.mu.Lock()
	gone := []string{}
	for path := range r.sockets {
		if !present[path] {
			gone = append(gone, path)
		}
	}

	r.mu.Unlock()
	for _, path := range gone {
		r.vanished(ctx, path)
	}
}

// appeared registers the driver behind a socket, again and again until it answers, the socket vanishes or ctx
// ends: a socket that was just made may not be served yet.
func (r *Registry) appeared(ctx context.Context, path string) {
	if info, err := os.Stat(path); err != nil || info.Mode()&os.ModeSocket == 0 ||
		filepath.Base(path)[0] == '.' {
		return
	}

	attempt, cancel := context.WithCancel(ctx)
	r.mu.Lock()
	if old := r.trying[path]; old != nil {
		old()
	}

	r.trying[path] = cancel
	r.mu.Unlock()
	r.running.Go(func() {
		defer cancel()

		for pause := range registerPauses.Attempts(attempt) {
			err := r.register(attempt, path)
			if err == nil || attempt.Err() != nil {
				return
			}

			if errors.Is(err, errNotServed) {
				r.cfg.Log.Warn("plugin is not registered", "socket", path, "err", err)
				return
			}

			r.cfg.Log.Warn("plugin is not registered", "socket", path, "err", err, "retry", pause)
		}
	})
}

// The pauses between attempts to register a driver, and to take one out of CSINode.
var (
	registerPauses = retry.Backoff{First: 100 * time.Millisecond, Max: 30 * time.Second}
	withdrawPauses = retry.Backoff{First: time.Second, Max: 30 * time.Second}
)

// vanished forgets the driver of a registration socket.
func (r *Registry) vanished(ctx context.Context, path string) {
	r.mu.Lock()
	if cancel := r.trying[path]; cancel != nil {
		cancel()
		delete(r.trying, path)
	}

	name := r.sockets[path]
	delete(r.sockets, path)
	var driver *Driver
	if name != "" {
		driver = r.drivers[name]
		delete(r.drivers, name)
	}

	r.mu.Unlock()
	if driver == nil {
		return
	}

	driver.close()
	r.cfg.Log.Info("CSI driver is gone", "driver", name)
	r.cfg.Changed()
	r.running.Go(func() { r.withdraw(ctx, name) })
}

// withdraw takes a driver out of CSINode. It tries until it can, or the driver is back.
func (r *Registry) withdraw(ctx context.Context, name string) {
	for pause := range withdrawPauses.Attempts(ctx) {
		err := r.withdrawOnce(ctx, name)
		if err == nil || ctx.Err() != nil {
			return
		}

		r.cfg.Log.Warn("CSI driver is not taken out of CSINode", "driver", name, "err", err, "retry", pause)
	}
}

func (r *Registry) withdrawOnce(ctx context.Context, name string) error {
	unlock, err := r.publish.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := r.Driver(name); err == nil {
		// it is back
		return nil
	}
	return r.cfg.Publisher.Remove(ctx, name)
}

// register speaks the registration protocol with the plugin behind path and enters its driver.
func (r *Registry) register(ctx context.Context, path string) error {
	conn, err := socket.Dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()

	client := registration.NewRegistrationClient(conn)
	short, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	info, err := client.GetInfo(short, &registration.InfoRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("ask plugin for its name: %w", err)
	}

	failure := r.admit(ctx, path, info)
	status := &registration.RegistrationStatus{PluginRegistered: failure == nil}
	if failure != nil {
		status.Error = failure.Error()
	}
	if _, err := client.NotifyRegistrationStatus(short, status); err != nil && failure == nil {
		r.cfg.Log.Warn("plugin did not take note of its registration", "plugin", info.Name, "err", err)
	}

	return failure
}

// errNotServed: it is no use to ask again.
var errNotServed = errors.New("this agent serves CSI plugins only")

func (r *Registry) admit(ctx context.Context, path string, info *registration.PluginInfo) error {
	if info.Type != registration.CSIPlugin {
		return fmt.Errorf("plugin %s is of type %s: %w", info.Name, info.Type, errNotServed)
	}

	if !slices.ContainsFunc(
		info.SupportedVersions,
		func(v string) bool { return v == "1.0.0" || len(v) > 1 && v[0] == '1' && v[1] == '.' },
	) {
		return fmt.Errorf("CSI driver %s supports versions %v, need 1.x", info.Name, info.SupportedVersions)
	}

	endpoint := info.Endpoint
	if endpoint == "" {
		endpoint = path
	}

	driver, about, err := open(ctx, info.Name, endpoint)
	if err != nil {
		return err
	}

	unlock, err := r.publish.Lock(ctx, info.Name)
	if err != nil {
		driver.close()
		return err
	}

	defer unlock()

	if err := r.cfg.Publisher.Add(ctx, about); err != nil {
		driver.close()
		return fmt.Errorf("enter CSI driver %s into CSINode: %w", info.Name, err)
	}

	r.mu.Lock()
	old := r.drivers[info.Name]
	r.drivers[info.Name], r.sockets[path] = driver, info.Name
	for other, name := range r.sockets {
		if name == info.Name && other != path {
			// the driver has moved: the old socket's end is not the driver's
			delete(r.sockets, other)
		}
	}

	r.mu.Unlock()
	if old != nil {
		old.close()
	}

	r.cfg.Log.Info("CSI driver is registered", "driver", info.Name, "node_id", about.NodeID)
	r.cfg.Changed()
	return nil
}

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
