// Package sandbox runs, stops and removes pod sandboxes. A sandbox is a set of namespaces pinned by bind
// mounts, a /dev/shm and a network attachment, without any process. Only a pod that shares its PID namespace
// has one, the init of that namespace. Records are boot-scoped and written before the kernel is touched, so
// that the next server finds and undoes what a killed one has half made. What follows in a sandbox's life is
// decided in cri/life.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/cgroupdriver"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/record"
	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Errors that a caller branches on. A sandbox that does not exist is record.ErrNotFound.
var (
	// ErrInvalid is a configuration that cannot be served, now or later.
	ErrInvalid = errors.New("invalid pod sandbox configuration")

	// ErrNotReady is a sandbox that was stopped.
	ErrNotReady = errors.New("pod sandbox is not ready")
)

// Network joins sandboxes to the pod network.
type Network interface {
	Setup(ctx context.Context, a network.Attachment) ([]netip.Addr, error)
	Teardown(ctx context.Context, a network.Attachment) error
}

// Processes runs the inits of shared PID namespaces.
type Processes interface {
	Create(ctx context.Context, c monitor.Container) (pid int, err error)
	Start(ctx context.Context, id string) error

	// Delete kills the process and forgets it. A process that does not exist is success.
	Delete(ctx context.Context, id string) error

	// Lives reports whether a process was created and has not ended.
	Lives(id string) bool
}

// Kernel makes and removes namespaces and mounts. Linux is the real one.
type Kernel interface {
	// CreateNamespaces makes namespaces of these kinds, runs inside on a thread that is in them, and pins
	// each at its path. With users it makes a user namespace as well, which the others belong to. On an
	// error nothing is left.
	CreateNamespaces(pins map[namespace.Kind]string, users *namespace.Users, inside func() error) error

	// PinPID pins the PID namespace of a process.
	PinPID(pid int, path string) error

	// Unpin removes a pin. A pin that does not exist is success.
	Unpin(path string) error

	// InNamespace runs f on a thread that is in a pinned namespace.
	InNamespace(path string, f func() error) error

	// MountShm mounts a /dev/shm that is of a user and his group.
	MountShm(dir string, owner int) error

	// Unmount unmounts a directory. One where nothing is mounted is success.
	Unmount(dir string) error
}

// Config is what a Service needs.
type Config struct {
	// Dir is boot-scoped, such as /run/trivet/cri/sandboxes.
	Dir string

	// FilesDir holds the files that containers can write, so it is not on the host's tmpfs, such as
	// /var/lib/trivet/cri/sandboxes.
	FilesDir string

	Network   Network
	Processes Processes
	Kernel    Kernel

	// InitProgram is the program that is the init of a shared PID namespace, called with "pause".
	InitProgram string

	Handlers ociruntime.Handlers
	Driver   cgroupdriver.Driver

	// OOMScoreMin is the lowest oom_score_adj that the server may set.
	OOMScoreMin int

	// UnprivilegedPorts allows pods with a network namespace of their own to bind ports below 1024 without
	// a capability, UnprivilegedICMP to send pings.
	UnprivilegedPorts bool
	UnprivilegedICMP  bool

	// Events gets an event for every change that clients see.
	Events *event.Hub

	Log *slog.Logger
}

// Service is the pod sandboxes of a node. It may be used by many goroutines.
type Service struct {
	paths
	cfg     Config
	records *record.Index[Record]

	namespaces namespaces
	inits      inits

	// names are held by pod name and attempt, so that a repeated Run waits for the one that is under way;
	// locks are held by ID.
	names keylock.Locks[string]
	locks keylock.Locks[string]
}

// Open reads the records of an earlier server, undoes what it has half made, and notes the sandboxes that
// have ended since.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	where := paths{state: cfg.Dir, disk: cfg.FilesDir}
	s := &Service{
		paths:      where,
		cfg:        cfg,
		namespaces: namespaces{where, cfg},
		inits:      inits{where, cfg},
	}

	var err error
	s.records, err = record.Open(record.Config[Record]{
		Dir:     s.recordsDir(),
		Kind:    "pod sandbox",
		Decode:  (*Record).decode,
		Changed: s.publish,
		Log:     cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.FilesDir, 0o700); err != nil {
		return nil, err
	}

	// The init of a pod with users of its own passes through.
	if err := os.Chmod(cfg.Dir, 0o711); err != nil {
		return nil, err
	}

	for _, r := range s.records.List() {
		s.reconcile(ctx, r)
	}

	return s, s.sweepFiles()
}

func (s *Service) publish(before, after *Record) {
	if e, ok := changed(before, after, time.Now()); ok {
		s.cfg.Events.Publish(e)
	}
}

// undoLimit bounds how long one half-made sandbox, whose network plugin may hang, keeps the server from
// starting.
const undoLimit = 30 * time.Second

// reconcile brings a recorded sandbox to what cri/life decides. What fails is tried again at the next start
// or when the client removes the sandbox.
func (s *Service) reconcile(ctx context.Context, r Record) {
	lives := s.cfg.Processes.Lives(initID(r.ID))
	switch life.SandboxAtStart(life.Sandbox{State: r.State, HasInit: r.sharesPID()}, lives) {
	case life.Undo:
		ctx, cancel := context.WithTimeout(ctx, undoLimit)
		defer cancel()

		if err := s.undo(ctx, r); err != nil {
			s.cfg.Log.Warn("half-made sandbox is not removed", "sandbox", r.ID, "err", err)
		}

	case life.Finish:
		if _, err := s.InitEnded(r.ID); err != nil {
			s.cfg.Log.Warn("end of a sandbox is not recorded", "sandbox", r.ID, "err", err)
		}
	}
}

// Get returns the sandbox of an ID or of a prefix that only one ID has. One that is being made does not exist
// yet.
func (s *Service) Get(id string) (Record, error) {
	r, err := s.records.Get(id)
	if err == nil && r.State == life.Making {
		return Record{}, fmt.Errorf("pod sandbox %s: %w", id, record.ErrNotFound)
	}
	return r, err
}

// NetnsOf returns the path of a pod's network namespace by its ID; empty for the host's.
func (s *Service) NetnsOf(id string) (string, error) {
	r, err := s.Get(id)
	if err != nil {
		return "", err
	}
	return s.Netns(r), nil
}

// Update records what the client has said of the pod since it was made: what it costs beside its containers,
// and what these may have together. nil says nothing new. The pod's control group is the client's, so nothing
// else changes.
func (s *Service) Update(id string, overhead, resources *runtimeapi.LinuxContainerResources) error {
	r, err := s.Get(id)
	if err != nil {
		return err
	}

	_, err = s.records.Change(r.ID, func(r *Record) bool { return r.update(overhead, resources) })
	return err
}

// List returns all sandboxes that are ready or stopped, in no order.
func (s *Service) List() []Record {
	return slices.DeleteFunc(s.records.List(), func(r Record) bool { return r.State == life.Making })
}

// Known reports whether there is a sandbox of this ID, also one that is being made or was stopped: all of
// them may be joined to a network.
func (s *Service) Known(id string) bool { return s.records.Has(id) }
