package staging

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/csiplugin"
)

// rpcTimeout bounds one call of a driver, as kubelet does.
const rpcTimeout = 2 * time.Minute

// pauses are those between attempts to unstage a volume, kubelet's.
var pauses = retry.Backoff{First: 500 * time.Millisecond, Max: 2*time.Minute + 2*time.Second}

// Drivers finds registered drivers (csiplugin.Registry).
type Drivers interface {
	Driver(name string) (*csiplugin.Driver, error)
}

// Config is what an Unstager needs.
type Config struct {
	Drivers Drivers

	// Used reports whether a pod of the node has the volume, or is about to have it staged.
	Used func(Place) (bool, error)

	// Unstaged is told that a volume is not staged any more. The volume is locked meanwhile.
	Unstaged func(Place)
	Log      *slog.Logger
}

// Unstager takes volumes from the node that no pod of it uses: at once, and again after a while when the
// driver fails, hangs or is not there. Nobody waits for it. It is safe for concurrent use.
type Unstager struct {
	cfg Config

	// volumes are locked, by their Name, and then places, by their Path, while a volume is being staged or
	// unstaged, and while it is decided whether it is to be: a volume may have several places, and the place
	// of a block volume may have been that of another.
	volumes keylock.Locks[string]
	places  keylock.Locks[string]

	// more is filled when there are tasks that nobody works on yet.
	more chan struct{}

	// mu guards tasks, and fresh, those that nobody works on yet.
	mu    sync.Mutex
	tasks map[Place]*task
	fresh []*task
}

// task is a volume that is to be looked at.
type task struct {
	Place

	// again is filled when there is a reason to look at once.
	again chan struct{}
}

// New returns an unstager. It does nothing until Run runs.
func New(cfg Config) *Unstager {
	return &Unstager{cfg: cfg, more: make(chan struct{}, 1), tasks: map[Place]*task{}}
}

// Lock waits until nothing is being staged or unstaged of the volume, or at its place, or ctx ends.
func (u *Unstager) Lock(ctx context.Context, p Place) (unlock func(), err error) {
	unlockVolume, err := u.volumes.Lock(ctx, p.Name())
	if err != nil {
		return nil, err
	}

	unlockPlace, err := u.places.Lock(ctx, p.Path)
	if err != nil {
		unlockVolume()
		return nil, err
	}

	return func() {
		unlockPlace()
		unlockVolume()
	}, nil
}

// Look has the volume unstaged if no pod uses it. It does not wait.
func (u *Unstager) Look(p Place) {
	u.mu.Lock()
	defer u.mu.Unlock()

	t := u.tasks[p]
	if t == nil {
		t = &task{Place: p, again: make(chan struct{}, 1)}
		u.tasks[p] = t
		u.fresh = append(u.fresh, t)
		notify(u.more)
		return
	}
	notify(t.again)
}

// DriversChanged has what waits tried again at once: a driver has come or gone.
func (u *Unstager) DriversChanged() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, t := range u.tasks {
		notify(t.again)
	}
}

// notify fills a channel that holds one value.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run unstages volumes until ctx ends. What is left is found again by the next start (List).
func (u *Unstager) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()

	for {
		for _, t := range u.takeFresh() {
			running.Go(func() { u.work(ctx, t) })
		}

		select {
		case <-ctx.Done():
			return
		case <-u.more:
		}
	}
}

// takeFresh returns the tasks that nobody works on yet.
func (u *Unstager) takeFresh() []*task {
	u.mu.Lock()
	defer u.mu.Unlock()
	fresh := u.fresh
	u.fresh = nil
	return fresh
}

// work tries a volume until it is unstaged or used. An error is shown once, and again when it changes.
func (u *Unstager) work(ctx context.Context, t *task) {
	pauses, shown := pauses, ""
	for ctx.Err() == nil {
		err := u.unstage(ctx, t.Place)
		if err == nil && u.finished(t) {
			return
		}
		if err == nil {
			pauses.Reset()
			continue
		}
		if text := err.Error(); text != shown && ctx.Err() == nil {
			u.cfg.Log.Warn("volume stays staged", "volume", t.Handle, "driver", t.Driver, "err", err)
			shown = text
		}

		select {
		case <-ctx.Done():
		case <-t.again:
			pauses.Reset()
		case <-time.After(pauses.Next()):
		}
	}
}

// finished ends a task, unless there is a reason to look again.
func (u *Unstager) finished(t *task) bool {
	u.mu.Lock()
	defer u.mu.Unlock()

	select {
	case <-t.again:
		return false
	default:
		delete(u.tasks, t.Place)
		return true
	}
}

// unstage takes the volume from the node if no pod uses it. A driver that was never asked to stage it, or has
// refused, is not called. Where there is another volume by now, nothing is left of this one.
func (u *Unstager) unstage(ctx context.Context, p Place) error {
	unlock, err := u.Lock(ctx, p)
	if err != nil {
		return err
	}
	defer unlock()

	err = p.Check()
	if errors.Is(err, ErrTaken) {
		return nil
	}
	if err != nil {
		return err
	}

	if used, err := u.cfg.Used(p); used || err != nil {
		return err
	}
	if is, err := p.MayBeStaged(); err != nil {
		return err
	} else if is {
		if err := u.call(ctx, p); err != nil {
			return fmt.Errorf("UnmountDevice: %w", err)
		}
	}
	if err := p.Forget(); err != nil {
		return err
	}

	u.cfg.Unstaged(p)
	return nil
}

// call has the driver unstage the volume, which counts as not staged from then on, whatever the driver says:
// the next pod has it staged again. A driver that does not know the volume has nothing to undo.
func (u *Unstager) call(ctx context.Context, p Place) error {
	driver, err := u.cfg.Drivers.Driver(p.Driver)
	if err != nil || !driver.Can(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		return err
	}
	if err := p.BeginUnstaging(); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	request := &csi.NodeUnstageVolumeRequest{VolumeId: p.Handle, StagingTargetPath: p.Path}
	_, err = driver.Node.NodeUnstageVolume(ctx, request)
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("NodeUnstageVolume of %s: %w", p.Handle, err)
	}

	return nil
}
