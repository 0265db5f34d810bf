package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/trivet-node/trivet/csi/alarm"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/daemonmetric"
	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/loan"
	"github.com/trivet-node/trivet/csi/registrar"
	"github.com/trivet-node/trivet/csi/snapshotmetadata"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/supervisor"
	"github.com/trivet-node/trivet/internal/trace"
)

// stopTimeout bounds how long calls that are under way may take when the process is asked to end.
const stopTimeout = 10 * time.Second

func serve(ctx context.Context, env *program.Env, o options) (err error) {
	log := env.Log
	listener, err := socket.Listen(ctx, o.endpoint)
	if err != nil {
		return err
	}
	defer listener.Close()

	store, err := openStorage(ctx, log, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()

	traces, err := newTraces(ctx, log, o)
	if err != nil {
		return err
	}
	defer traces.Flush()

	pools := map[string]daemonmetric.Pool{}
	if store.backends.pool != nil {
		pools[btrfspool.Name] = store.backends.pool
	}
	metrics := daemonmetric.New(store.volumes, pools)
	scrapes, err := metric.Listen(ctx, o.metrics, metrics.Registry, log)
	if err != nil {
		return err
	}

	control, err := newControllers(log, o, store.volumes)
	if err != nil {
		return err
	}
	d, err := newDriver(log, o, store, metrics, traces, control.calls())
	if err != nil {
		return &program.UsageError{Err: err}
	}
	if dirs := store.backends.dirs; control != nil && dirs != nil {
		dirs.OnFinding(control.recordFinding(o.nodeName))
	}

	return runAll(ctx, log, o, parts{
		listener: listener,
		storage:  store,
		driver:   d,
		scrapes:  scrapes,
		control:  control,

		supervisor: env.Supervisor,
	})
}

// newDriver makes what serves CSI; own are the methods that the controllers of this process call.
func newDriver(
	log *slog.Logger,
	o options,
	store *storage,
	metrics *daemonmetric.Set,
	traces *trace.Provider,
	own []string,
) (*driver.Driver, error) {
	config := driver.Config{
		NodeID:    o.nodeName,
		InlineDir: filepath.Join(o.kubeletDir, "plugins", driver.Name, "inline"),
		Version:   program.Version,
		Volumes:   store.volumes,
		Groups:    store.groups,
		Publisher: store.publisher,
		Limits:    store.publisher.Limits,
		Traces:    traces,
		Own:       own,
		Calls:     metrics.Calls.Observe,
		Log:       log,

		InlineMost:  o.inlineMost,
		VolumesMost: o.volumesMost,
	}
	if store.attached != nil {
		config.Attached = store.attached
	}
	if pool := store.backends.pool; pool != nil {
		config.Copies = true
		config.Metadata = snapshotmetadata.New(changedblocks.New(store.volumes, pool))
	}
	return driver.New(config)
}

// parts are what runs.
type parts struct {
	listener net.Listener
	storage  *storage
	driver   *driver.Driver
	scrapes  *metric.Server
	control  *controllers // nil: nothing is provisioned

	// supervisor hears when CSI is served, and whether it still is.
	supervisor supervisor.Supervisor
}

// runAll runs the parts until ctx ends or one of them fails.
func runAll(ctx context.Context, log *slog.Logger, o options, p parts) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { p.storage.volumes.Run(ctx); return nil })
	group.Go(func() error { p.storage.keepLimits(ctx, log); return nil })
	group.Go(func() error { alarm.New(p.storage.volumes, alarm.ToLog(log)).Run(ctx); return nil })
	group.Go(func() error { return p.scrapes.Run(ctx) })
	group.Go(func() error { return lend(ctx, log, o, p.storage) })
	group.Go(func() error { return serveUntil(ctx, log, p.driver.Server(), p.listener, o.endpoint) })
	log.Info("serving CSI", "socket", o.endpoint, "node", o.nodeName)
	if p.control != nil {
		group.Go(func() error { return p.control.run(ctx) })
	}

	// The driver can answer now: kubelet may call it as soon as it is registered.
	if err := register(ctx, group, log, o); err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}

	p.supervisor.Ready(log, "serving CSI on "+o.endpoint)

	// What was read at the start is kept slim, and what much work leaves.
	program.ForgetStart()
	group.Go(func() error { program.RestHeap(ctx); return nil })

	// As kubelet asks.
	answers := func(ctx context.Context) error { return probe(ctx, o.endpoint) }
	group.Go(func() error { p.supervisor.Watch(ctx, log, answers); return nil })
	return group.Wait()
}

// lend hands what volumes hold to export and import.
func lend(ctx context.Context, log *slog.Logger, o options, store *storage) error {
	path := loan.Socket(o.stateDir)
	listener, err := socket.Listen(ctx, path)
	if err != nil {
		return err
	}
	lender := loan.New(loan.Config{Volumes: store.volumes, Backends: store.backends.forLoans, Log: log})
	return lender.Run(ctx, listener, path)
}

// newTraces makes the provider of spans, nil if none are wanted.
func newTraces(ctx context.Context, log *slog.Logger, o options) (*trace.Provider, error) {
	traces, err := trace.New(ctx, trace.Config{
		Endpoint: o.tracing,
		Service:  "trivet-csi",
		Node:     o.nodeName,
		Log:      log,
	})
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	return traces, nil
}

// register serves the registration socket.
func register(ctx context.Context, group *errgroup.Group, log *slog.Logger, o options) error {
	if o.registrationDir == "" {
		return nil
	}
	path := filepath.Join(o.registrationDir, driver.Name+"-reg.sock")
	listener, err := socket.Listen(ctx, path)
	if err != nil {
		return err
	}
	r := registrar.New(registrar.Config{Driver: driver.Name, Endpoint: o.endpoint, Log: log})
	group.Go(func() error { return serveUntil(ctx, log, r.Server(), listener, path) })
	return nil
}

// serveUntil serves until ctx ends, then lets calls that are under way finish. A socket that somebody removes
// is made again: otherwise nobody could reach the driver until it is restarted, and kubelet forgets a plugin
// whose registration socket is gone.
func serveUntil(
	ctx context.Context,
	log *slog.Logger,
	server *grpc.Server,
	listener net.Listener,
	path string,
) error {
	failed := make(chan error, 1)
	serve := func(l net.Listener) {
		go func() {
			if err := server.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
				failed <- err
			}
		}()
	}

	serve(listener)
	go func() {
		if err := socket.Keep(ctx, listener, path, serve); err != nil {
			log.Warn("a socket that is removed is not made again", "socket", path, "err", err)
		}
	}()

	select {
	case err := <-failed:
		server.Stop()
		return err
	case <-ctx.Done():
	}

	// Calls that are being served may finish; those that take too long are cut off, and repeated by callers.
	deadline := time.AfterFunc(stopTimeout, server.Stop)
	defer deadline.Stop()

	server.GracefulStop()
	return socket.Remove(path)
}
