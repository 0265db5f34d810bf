// Package attend is the side of the installer that runs in a pod on the node that is changed. It looks at the
// node's label, waits for its turn, drains the node, gives the order, confirms that the node works with what
// the order has brought, and takes the node into use again. It keeps nothing in memory that it needs: the
// node's runtime may end its pod at any instruction and start it again.
package attend

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/eviction"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
	"github.com/trivet-node/trivet/release/installer/turn"
)

// Host is what is done to the machine: the exchange itself runs there, not in the pod.
type Host interface {
	// Stage brings trivet's files to the machine and returns the state that they are.
	Stage() (swap.State, error)

	// Sweep removes the files of other states; without any, all that the installer keeps.
	Sweep(keep ...swap.State) error

	// Launch has the machine carry out the order of the folder, if it does not already. It goes on with that
	// after its end, and after a reboot.
	Launch(ctx context.Context, state swap.State) error

	// Cancel has the machine end what it does, and not begin again by itself.
	Cancel(ctx context.Context) error

	// Idle reports whether the machine carries out no order.
	Idle(ctx context.Context) (bool, error)
}

// Config says what the installer of a part does.
type Config struct {
	// Part is the installer's: cri or node.
	Part string
	Node string

	// Label of nodes that should have the part, if its value is not false.
	Label string

	// State is that of the files of this version, Version names it for people.
	State   swap.State
	Version string

	// Drains says that pods do not survive the exchange. RuntimePrefix is what the node's runtime calls
	// itself when trivet has the seat of the runtime.
	Drains        bool
	RuntimePrefix string

	// DrainLimit is after how long a drain is given up, Pause is then the time to the next.
	DrainLimit time.Duration
	Pause      time.Duration

	// Trial is how long the node may take to be Ready, Prove how long one process has to live on then.
	Trial time.Duration
	Prove time.Duration

	Log *slog.Logger
}

// Attendant is the installer of a part on a node.
type Attendant struct {
	cfg    Config
	host   Host
	folder swap.Folder

	nodes    kube.Objects[corev1.Node]
	leases   kube.Objects[coordinationv1.Lease]
	drain    drain.Drain
	turn     *turn.Turn
	recorder *event.Recorder

	// started is when this process was: one that was there before the exchange proves nothing.
	started time.Time

	// notBefore is when a drain that was given up is tried again.
	notBefore time.Time
}

// New returns an attendant. It does nothing until Run runs.
func New(client *kube.Client, host Host, folder swap.Folder, cfg Config) *Attendant {
	leases := kube.Of[coordinationv1.Lease, coordinationv1.LeaseList](
		client, coordinationv1.SchemeGroupVersion, "leases")

	return &Attendant{
		cfg:    cfg,
		host:   host,
		folder: folder,
		nodes:  kube.Nodes(client),
		leases: leases,
		drain: drain.Drain{
			Nodes:     kube.Nodes(client),
			Pods:      kube.Pods(client),
			Evictions: eviction.Of(client),
			Node:      cfg.Node,
			By:        cfg.Part,
		},
		turn: turn.New(leases, cfg.Node+"/"+cfg.Part),
		recorder: event.New(kube.Events(client), event.Config{
			Component: "trivet-installer-" + cfg.Part,
			Node:      cfg.Node,
			Log:       cfg.Log,
		}),
		started: time.Now(),
	}
}

// Run attends to the node until ctx ends.
func (a *Attendant) Run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	done := make(chan struct{}, 2)
	go func() {
		a.recorder.Run(ctx)
		done <- struct{}{}
	}()
	go func() {
		a.follow(ctx, changed)
		done <- struct{}{}
	}()

	for ctx.Err() == nil {
		pause, err := a.look(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
		case apierrors.IsConflict(err):
			// Nodes are written all the time.
			pause = soon
		default:
			a.cfg.Log.Warn("looks again", "node", a.cfg.Node, "err", err)
			pause = lookAgain
		}

		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
	<-done
	<-done
}

// How long it waits for a change: while the node is out of use, while it is on trial and after a failure, for
// its turn, and in peace.
const (
	soon      = 200 * time.Millisecond
	lookAgain = 2 * time.Second
	turnPause = 5 * time.Second
	inPeace   = 10 * time.Minute
)

// follow signals changes of the node that may matter.
func (a *Attendant) follow(ctx context.Context, changed chan<- struct{}) {
	last := ""
	see := func(node *corev1.Node) error { //nolint:unparam // kube.Follow takes it so.
		if node == nil {
			return nil
		}

		// Not its status, which changes all the time.
		now := fmt.Sprint(node.Labels, node.Annotations[drain.Cordoned])
		if now != last {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		last = now
		return nil
	}

	for pause := range (retry.Backoff{First: time.Second, Max: 30 * time.Second}).Attempts(ctx) {
		if err := kube.Follow(ctx, a.nodes, "", a.cfg.Node, see); err != nil {
			a.cfg.Log.Debug("follows the node again", "err", err, "retry", pause)
		}
	}
}

// look does the next step, and returns after how long there may be another one.
func (a *Attendant) look(ctx context.Context) (time.Duration, error) {
	v, err := a.view(ctx)
	if err != nil {
		return 0, err
	}

	switch decide(v) {
	case accompany:
		return a.accompany(ctx, v)
	case conclude:
		return soon, a.conclude(ctx, v)
	case forgive:
		return soon, a.forgive(ctx, v)
	case giveUp:
		a.cfg.Log.Info("the drain is not wanted any more", "node", a.cfg.Node)
		return soon, a.leave(ctx, v)
	case begin:
		return a.begin(ctx, v)
	case finish:
		return a.finish(ctx, v)
	}

	// A process before this one may have been killed before it did.
	return inPeace, a.turn.Give(ctx)
}

func (a *Attendant) view(ctx context.Context) (v view, err error) {
	v.part = a.cfg.Part
	if v.node, err = a.nodes.Get(ctx, "", a.cfg.Node); err != nil {
		return v, fmt.Errorf("node %s: %w", a.cfg.Node, err)
	}
	if v.order, err = a.folder.Order(); err != nil {
		return v, err
	}
	if v.record, err = a.folder.Record(); err != nil {
		return v, err
	}

	if value, ok := v.node.Labels[a.cfg.Label]; ok && value != "false" {
		v.wanted = a.cfg.State
	}
	v.concluded, _, _ = strings.Cut(v.node.Annotations[mark(a.cfg.Part)], " ")
	return v, nil
}

// mark is the annotation with the end of the last order, and the label by which the pod stays on the node
// until that is as it was before.
func mark(part string) string { return "installer.trivet.dev/" + part }

// failedMark is the annotation with what was taken back: other nodes do not try it.
func failedMark(part string) string { return mark(part) + "-failed" }

// present is the value of the label.
const present = "present"
