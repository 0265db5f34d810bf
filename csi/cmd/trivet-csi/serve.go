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

	"github.com/trivet-node/trivet/csi/driver"
	"github.com/trivet-node/trivet/csi/registrar"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/socket"
)

// stopTimeout bounds how long calls that are under way may take when the process is asked to end.
const stopTimeout = 10 * time.Second

func serve(ctx context.Context, log *slog.Logger, o options) (err error) {
	listener, err := socket.Listen(o.endpoint)
	if err != nil {
		return err
	}
	defer listener.Close()
	store, err := openStorage(ctx, log, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.close()) }()
	d, err := driver.New(driver.Config{NodeID: o.nodeName, Version: program.Version, Volumes: store.volumes, Log: log})
	if err != nil {
		return &program.UsageError{Err: err}
	}
	ctx, cancel := context.WithCancel(ctx)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { store.volumes.Run(ctx); return nil })
	group.Go(func() error { return serveUntil(ctx, d.Server(), listener) })
	log.Info("serving CSI", "socket", o.endpoint, "node", o.nodeName)
	err = register(ctx, group, log, o)
	if err == nil {
		err = startProvisioner(ctx, group, log, o, store.volumes)
	}
	if err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	defer cancel()
	return group.Wait()
}

// register serves the registration socket, once the driver itself can answer.
func register(ctx context.Context, group *errgroup.Group, log *slog.Logger, o options) error {
	if o.registrationDir == "" {
		return nil
	}
	listener, err := socket.Listen(filepath.Join(o.registrationDir, driver.Name+"-reg.sock"))
	if err != nil {
		return err
	}
	r := registrar.New(registrar.Config{Driver: driver.Name, Endpoint: o.endpoint, Log: log})
	group.Go(func() error { return serveUntil(ctx, r.Server(), listener) })
	return nil
}

// serveUntil serves until ctx ends, then lets the calls under way finish.
func serveUntil(ctx context.Context, server *grpc.Server, listener net.Listener) error {
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	hurry := time.AfterFunc(stopTimeout, server.Stop)
	defer hurry.Stop()
	server.GracefulStop()
	return <-done
}
