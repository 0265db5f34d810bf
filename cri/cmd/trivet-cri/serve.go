package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sync/errgroup"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/daemonmetric"
	"github.com/trivet-node/trivet/cri/importer"
	"github.com/trivet-node/trivet/cri/server"
	"github.com/trivet-node/trivet/cri/stats"
	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/supervisor"
	"github.com/trivet-node/trivet/internal/trace"
)

// serve opens the parts, and serves until ctx ends.
func serve(ctx context.Context, cfg config.Config, by supervisor.Supervisor, log *slog.Logger) error {
	host, err := inspect(cfg)
	if err != nil {
		return err
	}

	// The lock of the socket is that of all state, too: of two servers, only one comes further.
	listener, err := socket.Listen(ctx, cfg.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()

	p := &parts{
		machine:    host,
		cfg:        cfg,
		log:        log,
		metrics:    daemonmetric.New(),
		supervisor: by,
	}
	defer p.close()

	p.traces, err = trace.New(ctx, trace.Config{
		Endpoint: cfg.Tracing.Endpoint,
		Service:  "trivet-cri",
		Log:      log,
	})
	if err != nil {
		return &program.UsageError{Err: err}
	}
	defer p.traces.Flush()

	if err := p.open(ctx); err != nil {
		return err
	}

	scrapes, err := p.listenMetrics(ctx)
	if err != nil {
		return err
	}

	archives, err := socket.Listen(ctx, importSocket(cfg.StateDir))
	if err != nil {
		return err
	}
	defer archives.Close()

	err = p.run(ctx, listener, archives, scrapes)
	if errors.Is(err, errDismissed) {
		return nil
	}

	return err
}

// listenMetrics listens for scrapes.
func (p *parts) listenMetrics(ctx context.Context) (*metric.Server, error) {
	p.metrics.Count(daemonmetric.Inventory{
		Sandboxes:  p.sandboxes,
		Containers: p.containers,
		Images:     p.images,
		Monitor:    p.monitor,
	})
	return metric.Listen(ctx, p.cfg.MetricsAddress, p.metrics.Registry, p.log)
}

// run serves both sockets until ctx ends or one of the parts fails.
func (p *parts) run(ctx context.Context, listener, archives net.Listener, scrapes *metric.Server) error {
	all, ctx := errgroup.WithContext(ctx)
	// Before the first pod is made: see Collect.
	if err := p.network.Collect(ctx, p.sandboxes.Known, p.sandboxesDir()); err != nil {
		p.log.Warn("not all networks of pods that are gone are released", "err", err)
	}

	g := p.server().GRPC()
	all.Go(func() error { return p.network.Run(ctx) })
	all.Go(func() error { return p.exits.Run(ctx) })
	all.Go(func() error { return p.streams.Run(ctx) })
	all.Go(func() error { return scrapes.Run(ctx) })
	all.Go(func() error { return importer.New(p.images, p.log).Run(ctx, archives) })
	all.Go(func() error { return awaitDismissal(ctx, p.monitor, p.log) })
	all.Go(func() error { return g.Serve(listener) })
	all.Go(func() error {
		<-ctx.Done()
		g.Stop()
		return nil
	})
	all.Go(func() error { p.supervisor.Watch(ctx, p.log, p.answers); return nil })

	p.log.Info("serving CRI", "socket", p.cfg.Socket)
	p.supervisor.Ready(p.log, "serving CRI on "+p.cfg.Socket)

	program.ForgetStart()
	return all.Wait()
}

// answers asks the server for a pod by its own socket, as kubelet does: a lock of all pods that is held
// forever, or a server that takes no calls any more, shows.
func (p *parts) answers(ctx context.Context) error {
	conn, err := socket.Dial(p.cfg.Socket)
	if err != nil {
		return err
	}
	defer conn.Close()

	nobody := &runtimeapi.PodSandboxFilter{Id: "0"}
	request := &runtimeapi.ListPodSandboxRequest{Filter: nobody}
	if _, err := runtimeapi.NewRuntimeServiceClient(conn).ListPodSandbox(ctx, request); err != nil {
		return fmt.Errorf("list pods by %s: %w", p.cfg.Socket, err)
	}

	return nil
}

// server returns the CRI server, which is not started.
func (p *parts) server() *server.Server {
	return server.New(server.Config{
		Version:    program.Version,
		Sandboxes:  p.sandboxes,
		Containers: p.containers,
		Images:     p.metrics.Images(p.images),
		Network:    p.network,
		Streams:    p.streams,
		Stats:      p.stats(),
		Events:     &p.events,
		Driver:     p.driver,
		Handlers:   p.handlers,
		Info:       p.cfg,
		Traces:     p.traces,
		Calls:      p.metrics.Calls.Observe,
		Log:        p.log,
	})
}

// stats returns the reader of what containers and pods use.
func (p *parts) stats() *stats.Reader {
	return stats.New(stats.Config{
		Sandboxes: p.sandboxes,
		Cgroups:   p.cgroups,
		Driver:    p.driver,
		Layers:    p.layers,
		Log:       p.log,
		V2:        p.cgroups.V2,
		HugePages: p.cgroups.CountsHugePages(),
	})
}
