// Package sandbox keeps pod sandboxes: a sandbox is a set of namespaces pinned by bind mounts, a /dev/shm and
// a network attachment, without any process. Only a pod that shares its PID namespace has one, the init of
// that namespace. Records are boot-scoped and written before the kernel is touched, so a killed server finds
// and undoes what it half made.
package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/undo"
)

// ErrNotFound is an unknown sandbox.
var ErrNotFound = errors.New("pod sandbox not found")

// Config is what sandboxes need.
type Config struct {
	Dir string // boot-scoped, e.g. /run/trivet/cri/sandboxes
	// of files that containers can write, so not on the host's tmpfs, e.g. /var/lib/trivet/cri/sandboxes
	FilesDir string
	Network  *network.Network
	Monitor  *monitor.Client
	Pause    string // program that is the init of a shared PID namespace
	Runtime  func(handler string) (ociruntime.Runtime, error)
	Cgroup   func(parent, id string) string // cgroupsPath of a process of a pod
	Group    func(parent, id string) string // the same below the cgroup root
	OOMMin   int
	Log      *slog.Logger

	UnprivilegedPorts bool // pods may bind ports below 1024 without a capability
	UnprivilegedICMP  bool // and ping
}

// State of a sandbox.
type State string

// States. A sandbox that is Making was not finished and is undone at the next start.
const (
	Making  State = "making"
	Ready   State = "ready"
	Stopped State = "stopped"
)

// Record is a sandbox on disk. Copies are handed out; they are never changed.
type Record struct {
	ID      string
	State   State
	Raw     []byte // its PodSandboxConfig
	Handler string
	Created time.Time
	Stopped time.Time
	IPs     []netip.Addr
	Pause   int  // pid of the init of a shared PID namespace; 0: none
	Network bool // may be joined to a network: a DEL is due
	config  *runtimeapi.PodSandboxConfig
}

// PodConfig is what kubelet asked for. It must not be changed.
func (r Record) PodConfig() *runtimeapi.PodSandboxConfig { return r.config }

// Options are the pod's namespace options.
func (r Record) Options() *runtimeapi.NamespaceOption {
	return r.config.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

// Sandboxes is all of them.
type Sandboxes struct {
	cfg   Config
	store *durable.Store[Record]
	names keylock.Locks[string] // by pod name and attempt: a retry waits for the call in flight
	locks keylock.Locks[string] // by ID

	mu  sync.RWMutex // guards all below
	all map[string]Record
}

// Open reads the records and undoes what was half made.
func Open(ctx context.Context, cfg Config) (*Sandboxes, error) {
	store, err := durable.OpenStore[Record](filepath.Join(cfg.Dir, "records"), true)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.FilesDir, 0o700); err != nil {
		return nil, err
	}

	s := &Sandboxes{cfg: cfg, store: store, all: map[string]Record{}}
	records, torn, err := store.List()
	if err != nil {
		return nil, fmt.Errorf("read sandboxes: %w", err)
	}

	for _, t := range torn {
		cfg.Log.Warn("sandbox record set aside", "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	for id, r := range records {
		r.config = &runtimeapi.PodSandboxConfig{}
		if err := proto.Unmarshal(r.Raw, r.config); err != nil {
			cfg.Log.Warn("sandbox record has a broken configuration", "sandbox", id, "err", err)
		}

		s.all[id] = r
		s.reconcile(ctx, r)
	}

	return s, s.sweepFiles()
}

// undoLimit bounds how long one half-made sandbox, whose network plugin may hang, keeps the server from
// starting.
const undoLimit = 30 * time.Second

func (s *Sandboxes) reconcile(ctx context.Context, r Record) {
	switch {
	case r.State == Making:
		ctx, cancel := context.WithTimeout(ctx, undoLimit)
		defer cancel()

		if err := s.Remove(ctx, r.ID); err != nil {
			s.cfg.Log.Warn("half-made sandbox is not removed", "sandbox", r.ID, "err", err)
		}

	case s.PIDNamespace(r) != "" && !s.cfg.Monitor.Lives(pauseID(r.ID)):
		if _, err := s.Ended(r.ID); err != nil {
			s.cfg.Log.Warn("end of a sandbox is not recorded", "sandbox", r.ID, "err", err)
		}
	}
}

// Live lists the IDs of all sandboxes that there are, stopped ones too: these may still be joined to a
// network.
func (s *Sandboxes) Live() map[string]bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	ids := make(map[string]bool, len(s.all))
	for id := range s.all {
		ids[id] = true
	}
	return ids
}

// Run makes a sandbox. Called again for the same pod and attempt while that is ready, it returns the one that
// is there: a caller whose deadline passed joins what he began.
func (s *Sandboxes) Run(
	ctx context.Context,
	config *runtimeapi.PodSandboxConfig,
	handler string,
) (id string, err error) {
	meta := config.GetMetadata()
	if meta.GetName() == "" || meta.GetUid() == "" {
		return "", errors.New("pod sandbox: metadata has no name or no uid")
	}

	name := fmt.Sprintf("%s/%s/%s/%d", meta.Namespace, meta.Name, meta.Uid, meta.Attempt)
	unlock, err := s.names.Lock(ctx, name)
	if err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}
	defer unlock()

	if found, ok := s.byMetadata(meta); ok {
		return found, nil
	}

	raw, err := proto.Marshal(config)
	if err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}

	r := Record{
		ID:      NewID(),
		State:   Making,
		Raw:     raw,
		Handler: handler,
		Created: time.Now(),
		config:  proto.CloneOf(config),
	}
	if err := check(r); err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}
	if _, err := s.cfg.Runtime(handler); err != nil {
		return "", err
	}

	release, err := s.locks.Lock(ctx, r.ID)
	if err != nil {
		return "", err
	}
	defer release()

	if err := s.build(ctx, &r); err != nil {
		return "", fmt.Errorf("pod sandbox %s: %w", name, err)
	}

	return r.ID, nil
}

// check refuses what cannot be done.
func check(r Record) error {
	if u := r.Options().GetUsernsOptions(); u != nil && u.Mode == runtimeapi.NamespaceMode_POD {
		return errors.New("user namespaces are not supported")
	}
	return checkSysctls(r)
}

func (s *Sandboxes) byMetadata(meta *runtimeapi.PodSandboxMetadata) (string, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for id, r := range s.all {
		m := r.config.GetMetadata()
		if r.State == Ready && m.GetUid() == meta.Uid && m.GetAttempt() == meta.Attempt &&
			m.GetName() == meta.Name && m.GetNamespace() == meta.Namespace {
			return id, true
		}
	}
	return "", false
}

func (s *Sandboxes) build(ctx context.Context, r *Record) (err error) {
	var u undo.Stack
	defer u.Unwind(ctx, &err)

	r.Network = r.Options().GetNetwork() != runtimeapi.NamespaceMode_NODE
	if err := s.store.Put(r.ID, *r); err != nil {
		return fmt.Errorf("record: %w", err)
	}

	u.Push("sandbox "+r.ID, func(ctx context.Context) error { return s.takeBack(ctx, *r) })
	if err := s.makeFiles(*r); err != nil {
		return err
	}
	if err := s.makeNamespaces(*r); err != nil {
		return err
	}

	if s.PIDNamespace(*r) != "" {
		if r.Pause, err = s.startPause(ctx, *r); err != nil {
			return err
		}
	}

	if r.Network {
		if r.IPs, err = s.cfg.Network.Setup(ctx, s.attachment(*r)); err != nil {
			return err
		}
		if err := s.writeNetSysctls(*r); err != nil {
			return err
		}
	}

	if err := ctx.Err(); err != nil {
		return fmt.Errorf("caller gave up: %w", context.Cause(ctx))
	}

	r.State = Ready
	if err := s.put(*r); err != nil {
		return err
	}

	// Ended may have come before there was a record to find
	if r.Pause != 0 && !s.cfg.Monitor.Lives(pauseID(r.ID)) {
		return errors.New("init of the shared PID namespace has ended already")
	}

	return nil
}

// Stop ends the network and the namespaces. Its containers must have been stopped. Repeating it and stopping
// what is not there is success.
func (s *Sandboxes) Stop(ctx context.Context, id string) error {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	r, err := s.Get(id)
	if err != nil || r.State == Stopped && !r.Network && r.Pause == 0 {
		return nil
	}

	if r.State == Ready {
		r.State, r.Stopped = Stopped, time.Now()
		if err := s.put(r); err != nil {
			return err
		}
	}

	if err := s.teardown(ctx, &r); err != nil {
		return fmt.Errorf("stop pod sandbox %s: %w", id, err)
	}

	return s.put(r)
}

// teardown goes on when a step fails, so that a broken CNI plugin holds nothing but its own state.
func (s *Sandboxes) teardown(ctx context.Context, r *Record) error {
	var errs []error
	if r.Network {
		if err := s.cfg.Network.Teardown(ctx, s.attachment(*r)); err != nil {
			errs = append(errs, err)
		} else {
			r.Network = false
		}
	}

	if pin := s.PIDNamespace(*r); pin != "" {
		if err := errors.Join(s.cfg.Monitor.Delete(ctx, pauseID(r.ID)), namespace.Unpin(pin)); err != nil {
			errs = append(errs, err)
		} else {
			r.Pause = 0
		}
	}

	return errors.Join(append(errs, s.removeNamespaces(*r), s.unmountFiles(*r))...)
}

// Remove stops the sandbox and forgets it.
func (s *Sandboxes) Remove(ctx context.Context, id string) error {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	r, err := s.Get(id)
	if err != nil {
		return nil
	}
	if err := s.destroy(ctx, r); err != nil {
		return fmt.Errorf("remove pod sandbox %s: %w", id, err)
	}

	return nil
}

// destroy takes everything back; the record goes last, unless something is left to be tried again.
func (s *Sandboxes) destroy(ctx context.Context, r Record) error {
	if err := s.teardown(ctx, &r); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(s.dir(r.ID)), os.RemoveAll(s.files(r.ID))); err != nil {
		return err
	}

	// round both, so that Ended does not write the record again
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.store.Delete(r.ID); err != nil {
		return err
	}

	delete(s.all, r.ID)
	return nil
}

// takeBack destroys a sandbox that was not finished. One that cannot be destroyed now is listed as stopped,
// so that kubelet goes on trying.
func (s *Sandboxes) takeBack(ctx context.Context, r Record) error {
	err := s.destroy(ctx, r)
	if err == nil {
		return nil
	}
	r.State, r.Stopped = Stopped, time.Now()
	return errors.Join(err, s.put(r))
}

// Get finds a sandbox by its ID or a unique beginning of it.
func (s *Sandboxes) Get(id string) (Record, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()

	if r, ok := s.all[id]; ok {
		return r, nil
	}

	var found []Record
	for full, r := range s.all {
		if id != "" && strings.HasPrefix(full, id) {
			found = append(found, r)
		}
	}

	if len(found) == 1 {
		return found[0], nil
	}

	return Record{}, fmt.Errorf("%s: %w", id, ErrNotFound)
}

// List returns all sandboxes that are or were ready, in no order.
func (s *Sandboxes) List() []Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Record, 0, len(s.all))
	for r := range maps.Values(s.all) {
		all = append(all, r)
	}
	return all
}

func (s *Sandboxes) put(r Record) error {
	// round both: the order of records is the order of states
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.store.Put(r.ID, r); err != nil {
		return fmt.Errorf("record pod sandbox %s: %w", r.ID, err)
	}
	s.all[r.ID] = r
	return nil
}

func (s *Sandboxes) dir(id string) string { return filepath.Join(s.cfg.Dir, id) }

// NewID makes an ID as the field's tools expect it: 64 hexadecimal digits.
func NewID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
