package csiplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

// The pauses between attempts to register a driver, and to take one out of CSINode.
var (
	registerPauses = retry.Backoff{First: 100 * time.Millisecond, Max: 30 * time.Second}
	withdrawPauses = retry.Backoff{First: time.Second, Max: 30 * time.Second}
)

// errNotServed says that there is no use in another attempt.
var errNotServed = errors.New("this agent serves CSI plugins only")

// vanishedError says that a driver was entered into CSINode, but that its socket has vanished meanwhile.
type vanishedError struct{ driver string }

func (e *vanishedError) Error() string {
	return "the socket of CSI driver " + e.driver + " has vanished"
}

// register speaks the registration protocol with the plugin behind a socket and enters its driver. The plugin
// is told how that ended, as the protocol wants it.
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

	failure := r.enter(ctx, path, info)
	status := &registration.RegistrationStatus{PluginRegistered: failure == nil}
	if failure != nil {
		status.Error = failure.Error()
	}

	if _, err := client.NotifyRegistrationStatus(short, status); err != nil && failure == nil {
		r.cfg.Log.Warn("plugin did not take note of its registration", "plugin", info.Name, "err", err)
	}

	return failure
}

// enter makes the driver of a plugin available: to the cluster, then to the pods of this node.
func (r *Registry) enter(ctx context.Context, path string, info *registration.PluginInfo) error {
	if err := check(info); err != nil {
		return err
	}

	endpoint := cmp.Or(info.Endpoint, path)
	driver, about, err := open(ctx, info.Name, endpoint, r.cfg.options(info.Name)...)
	if err != nil {
		return err
	}

	if err := r.publishDriver(ctx, path, driver, about); err != nil {
		driver.close()
		return err
	}

	r.cfg.Log.Info("CSI driver is registered", "driver", info.Name, "node_id", about.NodeID)
	r.cfg.Changed()
	return nil
}

// check refuses plugins that are not CSI drivers of version 1.
func check(info *registration.PluginInfo) error {
	if info.Type != registration.CSIPlugin {
		return fmt.Errorf("plugin %s is of type %s: %w", info.Name, info.Type, errNotServed)
	}

	version1 := func(v string) bool { return strings.HasPrefix(v, "1.") }
	if !slices.ContainsFunc(info.SupportedVersions, version1) {
		return fmt.Errorf("CSI driver %s supports versions %v, need 1.x", info.Name, info.SupportedVersions)
	}

	return nil
}

// publishDriver enters the driver into CSINode and then into the table.
func (r *Registry) publishDriver(ctx context.Context, path string, driver *Driver, about Info) error {
	unlock, err := r.publish.Lock(ctx, driver.Name)
	if err != nil {
		return err
	}
	defer unlock()

	if err := r.cfg.Publisher.Add(ctx, about); err != nil {
		return fmt.Errorf("enter CSI driver %s into CSINode: %w", driver.Name, err)
	}

	return r.add(ctx, path, driver)
}

// add puts the driver into the table, in the place of an earlier connection to it.
func (r *Registry) add(ctx context.Context, path string, driver *Driver) error {
	r.mu.Lock()
	defer r.mu.Unlock()

	// Who drops the socket cancels its attempts under the same lock.
	if ctx.Err() != nil {
		return &vanishedError{driver.Name}
	}

	// When a driver has moved to another socket, the end of the old socket is not that of the driver.
	for other, name := range r.sockets {
		if name == driver.Name && other != path {
			delete(r.sockets, other)
		}
	}

	if earlier := r.drivers[driver.Name]; earlier != nil {
		earlier.close()
	}
	r.drivers[driver.Name] = driver
	r.sockets[path] = driver.Name
	return nil
}

// withdraw takes a driver out of CSINode. It repeats that until it succeeds, the driver is back or ctx ends.
func (r *Registry) withdraw(ctx context.Context, name string) {
	for pause := range withdrawPauses.Attempts(ctx) {
		err := r.withdrawOnce(ctx, name)
		if err == nil || ctx.Err() != nil {
			return
		}

		r.cfg.Log.Warn("CSI driver is not taken out of CSINode", "driver", name, "err", err, "retry", pause)
	}
}

// withdrawOnce does nothing if the driver is back.
func (r *Registry) withdrawOnce(ctx context.Context, name string) error {
	unlock, err := r.publish.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()

	if _, err := r.Driver(name); err == nil {
		return nil
	}
	return r.cfg.Publisher.Remove(ctx, name)
}
