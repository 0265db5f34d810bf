// Package container creates, starts, stops and removes the containers of pod sandboxes. The processes belong
// to the monitor; here are the records, which are boot-scoped and written before the kernel is touched, and
// the order of steps. What follows in a container's life is decided in cri/life.
package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/keylock"
)

// Errors that a caller branches on. A container that does not exist is record.ErrNotFound, one of a stopped
// sandbox sandbox.ErrNotReady.
var (
	// ErrInvalid is a configuration that cannot be served, now or later.
	ErrInvalid = errors.New("invalid container configuration")

	// ErrNotRunning is a call that needs a running container.
	ErrNotRunning = errors.New("container is not running")

	// ErrInUse is a memory limit below what the container uses.
	ErrInUse = errors.New("memory is in use")
)

// Processes runs the containers' processes. The monitor does.
type Processes interface {
	// Create makes the first process, which waits for Start. ErrRefused of the monitor says that the OCI
	// runtime cannot make it.
	Create(ctx context.Context, c monitor.Container) (pid int, err error)

	Start(ctx context.Context, id string) error

	// Kill sends a signal to the first process. One that has ended is success. ErrUnnoticed of the monitor
	// says that it was not sent, because the program does not catch it yet.
	Kill(id string, signal unix.Signal) error

	// Delete kills what is left of a container and forgets it. One that does not exist is success.
	Delete(ctx context.Context, id string) error

	// Update changes the limits of a container. Once asked for, it is carried out even if ctx ends. On an
	// error some may have been changed.
	Update(ctx context.Context, id string, resources *specs.LinuxResources) error

	ReopenLog(ctx context.Context, id string) error
}

// Inventory says what became of the containers of an earlier server.
type Inventory interface {
	List() []monitor.Status

	// Started reports whether the user's program was let run.
	Started(ctx context.Context, id string) (bool, error)

	// AwaitUpdates waits for updates that an earlier server asked for.
	AwaitUpdates(ctx context.Context, id string) error
}

// Bundles makes OCI bundles; see cri/bundle.
type Bundles interface {
	Make(ctx context.Context, r bundle.Request) (bundle.Bundle, error)

	// Created releases what only the creation of the container needed.
	Created(ctx context.Context, id string) error

	Release(ctx context.Context, ids ...string) error
	IDs() ([]string, error)
}

// Images finds images by name or ID.
type Images interface {
	Get(name string) (image.Image, error)
}

// Groups reads and limits control groups; see internal/cgroup.
type Groups interface {
	// MemoryUsage returns how many bytes of memory a group uses.
	MemoryUsage(group string) (int64, error)

	Exists(group string) bool
	Apply(group string, limits cgroup.Limits) error
}

// Config is what a Service needs.
type Config struct {
	// Dir is boot-scoped, such as /run/trivet/cri/containers.
	Dir string

	Sandboxes *sandbox.Service
	Images    Images
	Bundles   Bundles
	Processes Processes
	Inventory Inventory
	Handlers  ociruntime.Handlers
	Driver    cgroupdriver.Driver

	// Host is what the machine can do; Groups are its control groups.
	Host   spec.Host
	Groups Groups

	// Events gets an event for every change that clients see.
	Events *event.Hub

	Log *slog.Logger
}

// Service is the containers of a node. It may be used by many goroutines.
type Service struct {
	cfg     Config
	records *record.Index[Record]
	ends    ends

	// pending are the creations that are under way.
	pending pending

	// names are held by sandbox, name and attempt, so that a repeated Create waits for the one that is under
	// way; locks are held by ID.
	names keylock.Locks[string]
	locks keylock.Locks[string]
}

// Open reads the records of an earlier server, compares them with what the monitor has, and undoes or
// finishes what was half done.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	c := &Service{cfg: cfg}
	var err error
	c.records, err = record.Open(record.Config[Record]{
		Dir:     filepath.Join(cfg.Dir, "records"),
		Kind:    "container",
		Decode:  (*Record).decode,
		Changed: c.publish,
		Log:     cfg.Log,
	})
	if err != nil {
		return nil, err
	}

	found := recovery{containers: c, statuses: map[string]monitor.Status{}}
	for _, s := range cfg.Inventory.List() {
		found.statuses[s.ID] = s
	}

	for _, r := range c.records.List() {
		found.reconcile(ctx, r)
	}

	return c, nil
}

func (c *Service) publish(before, after *Record) {
	if e, ok := changed(before, after, time.Now()); ok {
		c.cfg.Events.Publish(e)
	}
}

// ReleaseOrphans releases the root file systems that no record names. It is called once at the start, when
// no process of them is left. What cannot be released now is tried again at the next start.
func (c *Service) ReleaseOrphans(ctx context.Context) {
	ids, err := c.cfg.Bundles.IDs()
	if err != nil {
		c.cfg.Log.Warn("root file systems without a container are left", "err", err)
	}

	for _, id := range ids {
		if c.Known(bundle.OwnerOf(id)) {
			continue
		}
		if err := c.cfg.Bundles.Release(ctx, id); err != nil {
			c.cfg.Log.Warn("root file system without a container is left", "rootfs", id, "err", err)
		}
	}
}

// Get returns the container of an ID or of a prefix that only one ID has. One that is being created does not
// exist yet.
func (c *Service) Get(id string) (Record, error) {
	r, err := c.records.Get(id)
	if err == nil && !r.Complete {
		return Record{}, fmt.Errorf("container %s: %w", id, record.ErrNotFound)
	}
	return r, err
}

// List returns all containers, in no order.
func (c *Service) List() []Record {
	return slices.DeleteFunc(c.records.List(), func(r Record) bool { return !r.Complete })
}

// Of returns the containers of a sandbox, in no order.
func (c *Service) Of(sandboxID string) []Record {
	return slices.DeleteFunc(c.List(), func(r Record) bool { return r.Sandbox != sandboxID })
}

// Known reports whether there is a container of this ID, also one that is being created.
func (c *Service) Known(id string) bool { return c.records.Has(id) }

// Running returns a container that runs; the error is ErrNotRunning for one that does not.
func (c *Service) Running(id string) (Record, error) {
	r, err := c.Get(id)
	if err == nil && r.State != life.Running {
		err = fmt.Errorf("container %s: %w", r.ID, ErrNotRunning)
	}
	return r, err
}

// Process returns the process of a running container, from which an exec takes all but its arguments and
// terminal.
func (c *Service) Process(_ context.Context, id string) (specs.Process, error) {
	r, err := c.Running(id)
	if err != nil {
		return specs.Process{}, err
	}
	process, err := bundle.Process(c.dir(r.ID))
	if err != nil {
		return specs.Process{}, fmt.Errorf("container %s: %w", id, err)
	}
	return process, nil
}

// ReopenLog makes the monitor open the log's path again, after the log was rotated.
func (c *Service) ReopenLog(ctx context.Context, id string) error {
	r, err := c.Running(id)
	if err != nil {
		return fmt.Errorf("reopen log: %w", err)
	}
	return c.cfg.Processes.ReopenLog(ctx, r.ID)
}

func (c *Service) dir(id string) string { return filepath.Join(c.cfg.Dir, id) }

// lock returns a container whose other changes wait until unlock is called.
func (c *Service) lock(ctx context.Context, id string) (r Record, unlock func(), err error) {
	if r, err = c.Get(id); err != nil {
		return r, nil, err
	}

	unlock, err = c.locks.Lock(ctx, r.ID)
	if err != nil {
		return r, nil, err
	}

	// It may have changed, or gone, while this call waited.
	if r, err = c.Get(r.ID); err != nil {
		unlock()
		return r, nil, err
	}

	return r, unlock, nil
}
