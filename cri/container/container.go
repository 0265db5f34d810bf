// Package container keeps the containers of pod sandboxes from creation to removal. The processes belong to
// the monitor; here are the records, which are boot-scoped and written before the kernel is touched, and the
// order of steps.
package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
	"github.com/trivet-node/trivet/cri/apparmor"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/keylock"
)

// Errors a caller branches on.
var (
	ErrNotFound   = errors.New("container not found")
	ErrNotRunning = errors.New("container is not running")
)

// Config is what containers need.
type Config struct {
	Dir        string // boot-scoped, e.g. /run/trivet/cri/containers
	SeccompDir string
	Images     *image.Store
	Rootfs     *rootfs.Manager
	Monitor    *monitor.Client
	Sandboxes  *sandbox.Sandboxes
	Runtime    func(handler string) (ociruntime.Runtime, error)
	Cgroup     func(parent, id string) string // cgroupsPath in the OCI spec
	Group      func(parent, id string) string // the same below the cgroup root
	Host       spec.Host
	Log        *slog.Logger
	AppArmor   *apparmor.Profiles

	// AllowedAnnotations are patterns of what of a pod's annotations a handler's OCI runtime may see.
	AllowedAnnotations func(handler string) []string
}

// Record is a container on disk. Copies are handed out; they are never changed.
type Record struct {
	ID, Sandbox string
	State       runtimeapi.ContainerState
	Made        bool   // creation was finished; what is not is undone at the next start
	Discarded   bool   // its removal has begun, before it was ever started
	Refused     string // why the OCI runtime did not make it, so that its start fails; empty: it made it
	Raw         []byte
	ImageID     string
	ImageRef    string // name of the image with the digest of its manifest, as long as it has one
	ImageName   string // as it was asked for
	LogPath     string
	Created     time.Time
	Started     time.Time
	Finished    time.Time
	Pid         int
	Code        int
	Reason      string
	Message     string
	User        account.User
	Resources   *runtimeapi.LinuxContainerResources // as updated; nil: as asked for
	Volumes     []string                            // IDs of mounted image volumes
	VolumeIDs   map[string]string                   // container path -> image ID
	StopSignal  unix.Signal                         // kept here, as the image may be removed while it runs
	config      *runtimeapi.ContainerConfig
}

// ContainerConfig is what kubelet asked for. It must not be changed.
func (r Record) ContainerConfig() *runtimeapi.ContainerConfig { return r.config }

// Event is a change of state.
type Event struct {
	ID, Sandbox string
	Type        runtimeapi.ContainerEventType
	At          time.Time
}

// Containers is all of them.
type Containers struct {
	cfg    Config
	store  *durable.Store[Record]
	locks  keylock.Locks[string] // by ID
	names  keylock.Locks[string] // by sandbox and name: a retry waits for the call in flight
	notify func(Event)

	mu   sync.RWMutex // guards all below
	all  map[string]Record
	done map[string]chan struct{} // closed when the container has ended, of those that run
	// making are containers that the monitor has been told to create and that are not in all yet, with the
	// exit that came meanwhile.
	making map[string]*monitor.Exit
}

// Open reads the records, compares them with what the monitor has, and undoes what was half made or belongs
// to nobody.
func Open(ctx context.Context, cfg Config, notify func(Event)) (*Containers, error) {
	store, err := durable.OpenStore[Record](filepath.Join(cfg.Dir, "records"), true)
	if err != nil {
		return nil, err
	}

	c := &Containers{
		cfg:    cfg,
		store:  store,
		notify: notify,
		all:    map[string]Record{},
		done:   map[string]chan struct{}{},
		making: map[string]*monitor.Exit{},
	}

	records, torn, err := store.List()
	if err != nil {
		return nil, fmt.Errorf("read containers: %w", err)
	}

	for _, t := range torn {
		cfg.Log.Warn("container record set aside", "record", t.Name, "moved", t.Moved, "err", t.Err)
	}

	live := map[string]monitor.Status{}
	for _, s := range cfg.Monitor.List() {
		live[s.ID] = s
	}

	for id, r := range records {
		r.config = &runtimeapi.ContainerConfig{}
		if err := proto.Unmarshal(r.Raw, r.config); err != nil {
			cfg.Log.Warn("container record has a broken configuration", "container", id, "err", err)
		}

		c.all[id] = r
		c.reconcile(ctx, r, live)
	}

	c.removeOrphans(ctx, live)
	return c, nil
}

func (c *Containers) reconcile(ctx context.Context, r Record, live map[string]monitor.Status) {
	if !r.Made {
		if err := c.takeBack(ctx, r); err != nil {
			c.cfg.Log.Warn("half-made container is not removed", "container", r.ID, "err", err)
		}

		return
	}

	if _, err := c.cfg.Sandboxes.Get(r.Sandbox); err != nil || r.Discarded {
		if err := c.Remove(ctx, r.ID); err != nil {
			c.cfg.Log.Warn("container that nobody wants is not removed", "container", r.ID, "err", err)
		}

		return
	}

	if r.State == runtimeapi.ContainerState_CONTAINER_EXITED || r.Refused != "" {
		return
	}

	c.done[r.ID] = make(chan struct{})
	s, ok := live[r.ID]
	switch {
	case !ok:
		c.ended(monitor.Exit{
			ID:      r.ID,
			Code:    monitor.UnknownCode,
			Unknown: true,
			At:      time.Now(),
		})

	case s.Exit != nil:
		c.ended(*s.Exit)
	case r.State == runtimeapi.ContainerState_CONTAINER_CREATED:
		c.resume(ctx, r.ID)
	}
}

// resume finishes a start that was cut off between the runtime and the record.
func (c *Containers) resume(ctx context.Context, id string) {
	started, err := c.cfg.Monitor.Started(ctx, id)
	if err == nil && started {
		_, err = c.change(
			id,
			func(r *Record) { r.State, r.Started = runtimeapi.ContainerState_CONTAINER_RUNNING, time.Now() },
		)
	}
	if err != nil {
		c.cfg.Log.Warn("it is not known whether a container was started", "container", id, "err", err)
	}
}

// removeOrphans ends what the monitor or the root file systems have and no record names. What cannot be ended
// now is tried again at the next start.
func (c *Containers) removeOrphans(ctx context.Context, live map[string]monitor.Status) {
	for id := range live {
		box, isPause := sandbox.OfPause(id)
		_, boxErr := c.cfg.Sandboxes.Get(box)
		if _, known := c.all[id]; known || isPause && boxErr == nil {
			continue
		}
		if err := c.cfg.Monitor.Delete(ctx, id); err != nil {
			c.cfg.Log.Warn("container without a record stays", "container", id, "err", err)
		}
	}

	ids, err := c.cfg.Rootfs.IDs()
	if err != nil {
		c.cfg.Log.Warn("root file systems without a container stay", "err", err)
	}

	for _, id := range ids {
		owner, _, _ := strings.Cut(id, "-")
		if _, known := c.all[owner]; known {
			continue
		}
		if err := c.cfg.Rootfs.Release(ctx, id); err != nil {
			c.cfg.Log.Warn("root file system without a container stays", "rootfs", id, "err", err)
		}
	}
}

// Run takes the monitor's exits until ctx ends.
func (c *Containers) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-c.cfg.Monitor.Exits():
			if !ok {
				return nil
			}

			if box, isPause := sandbox.OfPause(e.ID); isPause {
				c.podEnded(box)
			} else {
				c.ended(e)
			}
		}
	}
}

// podEnded follows the end of the init of a pod's shared PID namespace. In CRI's events a sandbox goes by its
// own ID as a container does.
func (c *Containers) podEnded(box string) {
	news, err := c.cfg.Sandboxes.Ended(box)
	if err != nil {
		c.cfg.Log.Error("end of a sandbox is not recorded", "sandbox", box, "err", err)
	}

	if news {
		c.cfg.Log.Warn("the init of a shared PID namespace has ended, and all that ran there", "sandbox", box)
		c.notify(Event{
			ID:      box,
			Sandbox: box,
			Type:    runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
			At:      time.Now(),
		})
	}
}

// ended records how a container ended. It takes no lock by ID: Stop waits for it while holding that.
func (c *Containers) ended(e monitor.Exit) {
	c.mu.Lock()
	r, ok := c.all[e.ID]
	if !ok || r.State == runtimeapi.ContainerState_CONTAINER_EXITED {
		if _, being := c.making[e.ID]; being {
			c.making[e.ID] = &e
		}

		c.mu.Unlock()
		return
	}

	if done := c.done[e.ID]; done != nil {
		delete(c.done, e.ID)
		defer close(done)
	}

	// what never started is not shown as ended
	if r.Discarded {
		c.mu.Unlock()
		return
	}

	r.State, r.Finished, r.Code = runtimeapi.ContainerState_CONTAINER_EXITED, e.At, e.Code
	switch {
	case e.Unknown:
		r.Reason, r.Message = "Unknown", "exit status unknown: monitor and server were dead when it ended"
	case e.OOM:
		r.Reason = "OOMKilled"
	case e.Code == 0:
		r.Reason = "Completed"
	default:
		r.Reason = "Error"
	}

	c.all[e.ID] = r

	// with mu held: the order of records is the order of states
	err := c.store.Put(r.ID, r)
	c.mu.Unlock()
	if err != nil {
		c.cfg.Log.Error("exit is not recorded", "container", r.ID, "err", err)
	}

	c.notify(Event{
		ID:      r.ID,
		Sandbox: r.Sandbox,
		Type:    runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
		At:      r.Finished,
	})
}

// change edits a record on disk and in memory.
func (c *Containers) change(id string, edit func(*Record)) (Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	r, ok := c.all[id]
	if !ok {
		return r, fmt.Errorf("%s: %w", id, ErrNotFound)
	}

	edit(&r)
	if err := c.store.Put(id, r); err != nil {
		return r, fmt.Errorf("record container %s: %w", id, err)
	}

	c.all[id] = r
	return r, nil
}

// Get finds a container by its ID or a unique beginning of it.
func (c *Containers) Get(id string) (Record, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()

	if r, ok := c.all[id]; ok {
		return r, nil
	}

	var found []Record
	for full, r := range c.all {
		if id != "" && strings.HasPrefix(full, id) {
			found = append(found, r)
		}
	}

	if len(found) == 1 {
		return found[0], nil
	}

	return Record{}, fmt.Errorf("%s: %w", id, ErrNotFound)
}

// List returns all containers, in no order.
func (c *Containers) List() []Record {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]Record, 0, len(c.all))
	for r := range maps.Values(c.all) {
		if r.Made {
			all = append(all, r)
		}
	}
	return all
}

// Of returns the containers of a sandbox.
func (c *Containers) Of(sandboxID string) []Record {
	var all []Record
	for _, r := range c.List() {
		if r.Sandbox == sandboxID {
			all = append(all, r)
		}
	}
	return all
}

// Process is that of a running container, for exec.
func (c *Containers) Process(_ context.Context, id string) (specs.Process, error) {
	r, err := c.Get(id)
	if err != nil {
		return specs.Process{}, err
	}
	if r.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return specs.Process{}, fmt.Errorf("%s: %w", id, ErrNotRunning)
	}

	s, err := readSpec(c.dir(r.ID))
	if err != nil {
		return specs.Process{}, fmt.Errorf("container %s: %w", id, err)
	}

	return *s.Process, nil
}

func (c *Containers) dir(id string) string { return filepath.Join(c.cfg.Dir, id) }

func removeDir(dir string) error {
	if err := os.RemoveAll(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
