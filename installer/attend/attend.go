// Package attend is the side of the installer that runs in a pod on the node that is changed. It looks at the
// node's label, waits for its turn, drains the node, gives the order, confirms that the node works with what the
// order has brought, and takes the node into use again. It keeps nothing in memory that it needs: the node's
// runtime may end its pod at any instruction and start it again.
package attend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/installer/drain"
	"github.com/trivet-node/trivet/installer/swap"
	"github.com/trivet-node/trivet/installer/turn"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/eviction"
	"github.com/trivet-node/trivet/internal/retry"
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

	// Drains says that pods do not survive the exchange. RuntimePrefix is what the node's runtime calls itself
	// when trivet has the seat of the runtime.
	Drains        bool
	RuntimePrefix string

	// DrainLimit is after how long a drain is given up, Pause is then the time to the next.
	DrainLimit time.Duration
	Pause      time.Duration

	// Trial is how long the node may take to be Ready.
	Trial time.Duration

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
		if err != nil && ctx.Err() == nil {
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

// How long it waits for a change: while something is under way, after a failure, for its turn, and in peace.
const (
	soon      = 500 * time.Millisecond
	lookAgain = 2 * time.Second
	turnPause = 5 * time.Second
	inPeace   = 10 * time.Minute
)

// follow signals changes of the node that may matter.
func (a *Attendant) follow(ctx context.Context, changed chan<- struct{}) {
	last := ""
	see := func(node *corev1.Node) error {
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
		return soon, a.accompany(ctx, v)
	case conclude:
		return soon, a.conclude(ctx, v)
	case forgive:
		return soon, a.forgive(ctx, v)
	case giveUp:
		a.cfg.Log.Info("the drain is not wanted any more", "node", a.cfg.Node)
		return soon, a.leave(ctx, v)
	case begin:
		return a.begin(ctx, v)
	}
	return inPeace, nil
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

// mark is the annotation with the end of the last order, and the label by which the pod stays on the node until
// that is as it was before.
func mark(part string) string { return "installer.trivet.dev/" + part }

// present is the value of the label.
const present = "present"

// begin takes the turn, drains the node and gives the order.
func (a *Attendant) begin(ctx context.Context, v view) (time.Duration, error) {
	if wait := time.Until(a.notBefore); wait > 0 {
		return wait, nil
	}
	if idle, err := a.host.Idle(ctx); err != nil || !idle {
		return soon, err
	}

	other, err := a.turn.Take(ctx)
	if err != nil {
		return 0, err
	}
	if other != "" {
		a.cfg.Log.Info("waits for its turn", "node", a.cfg.Node, "turn", other)
		return turnPause, nil
	}

	if !isReady(v.node) {
		// It could not be confirmed that it works afterwards.
		err := fmt.Errorf("node %s is not Ready: nothing is changed until it is", a.cfg.Node)
		return 0, errors.Join(err, a.turn.Give(ctx))
	}
	if err := a.drain.Cordon(ctx, v.node, map[string]any{mark(a.cfg.Part): present}); err != nil {
		return 0, err
	}

	pods, err := a.drain.List(ctx)
	if err != nil {
		return 0, err
	}
	if drained, err := a.evict(ctx, v, pods); err != nil || !drained {
		return soon, err
	}
	return soon, a.order(ctx, v, drain.Images(pods))
}

// evict reports whether no pod is left that has to go. A drain that takes too long is given up.
func (a *Attendant) evict(ctx context.Context, v view, pods []*corev1.Pod) (done bool, err error) {
	replaces := a.cfg.Drains && (v.wanted == swap.Out || v.record.State() == swap.Out)
	if !replaces {
		return true, nil
	}

	left, err := a.drain.Evict(ctx, pods)
	if err == nil && len(left) == 0 {
		return true, nil
	}

	since := drain.Since(v.node, a.cfg.Part)
	if since.IsZero() || time.Since(since) < a.cfg.DrainLimit {
		return false, err
	}

	if err == nil {
		err = fmt.Errorf("after %s these are left: %s", a.cfg.DrainLimit, strings.Join(left[:min(len(left), 5)], ", "))
	}
	a.say(corev1.EventTypeWarning, "DrainGivenUp", err.Error())
	a.notBefore = time.Now().Add(a.cfg.Pause)
	return false, a.release(ctx, v.node, drain.Change{})
}

// order gives the order.
func (a *Attendant) order(ctx context.Context, v view, images []string) error {
	order := swap.Order{
		ID:      strings.ToLower(rand.Text()[:8]),
		To:      v.wanted,
		Version: a.cfg.Version,
		Trial:   a.cfg.Trial,
		Images:  images,
	}
	state, err := a.host.Stage()
	if err != nil {
		return err
	}
	if err := a.folder.Give(order); err != nil {
		return err
	}
	return a.host.Launch(ctx, state)
}

// relaunch has the machine go on with an order that it does not carry out.
func (a *Attendant) relaunch(ctx context.Context) error {
	state, err := a.host.Stage()
	if err != nil {
		return err
	}
	return a.host.Launch(ctx, state)
}

// accompany an order: the machine carries it out, and this process says whether the node works.
func (a *Attendant) accompany(ctx context.Context, v view) error {
	// A turn that was lost does not stop what is under way.
	if _, err := a.turn.Take(ctx); err != nil {
		a.cfg.Log.Warn("turn is not renewed", "err", err)
	}
	idle, err := a.host.Idle(ctx)
	if err != nil {
		return err
	}
	if idle {
		return a.relaunch(ctx)
	}

	if v.record.Phase != swap.Trying {
		return nil
	}
	if why := a.unfit(ctx, v); why != "" {
		a.cfg.Log.Debug("the node is not confirmed yet", "why", why)
		return nil
	}
	return a.folder.Confirm(v.order.ID)
}

// conclude says how the order ended, and takes the node into use again.
func (a *Attendant) conclude(ctx context.Context, v view) error {
	if idle, err := a.host.Idle(ctx); err != nil || !idle {
		return err
	}

	record, text := v.record, summary(v)
	text = fmt.Sprintf("%s (%s): %s", a.cfg.Part, record.Order.Version, clip(text))
	a.cfg.Log.Info("order is done", "order", record.Order.ID, "result", text)

	failed := record.Failure != "" || record.Left != ""
	if record.State() == swap.Out && !failed {
		a.say(corev1.EventTypeNormal, "Exchanged", text)
		return a.leave(ctx, v)
	}

	annotations := map[string]any{mark(a.cfg.Part): record.Order.ID + " " + text}
	if err := a.release(ctx, v.node, drain.Change{Annotations: annotations}); err != nil {
		return err
	}

	kind, reason := corev1.EventTypeNormal, "Exchanged"
	if failed {
		kind, reason = corev1.EventTypeWarning, "TakenBack"
	}
	a.say(kind, reason, text)
	return a.host.Sweep(record.State(), a.cfg.State)
}

// forgive a failure.
func (a *Attendant) forgive(ctx context.Context, v view) error {
	if err := a.folder.Accept(); err != nil {
		return err
	}
	return a.leave(ctx, v)
}

// leave the node in use. If it is as it was before, it has nothing of the installer any more, and this pod goes
// with the label.
func (a *Attendant) leave(ctx context.Context, v view) error {
	if v.record.State() != swap.Out {
		return a.release(ctx, v.node, drain.Change{})
	}

	if err := a.host.Sweep(); err != nil {
		return err
	}
	none := map[string]any{mark(a.cfg.Part): nil}
	return a.release(ctx, v.node, drain.Change{Labels: none, Annotations: none})
}

// summary says how the order ended.
func summary(v view) string {
	record := v.record
	text := fmt.Sprintf("%s has the seat", record.State())
	if outage := record.Switched.Sub(record.Stopped); !record.Stopped.IsZero() && record.Failure == "" {
		text += fmt.Sprintf("; the node was without its agent for %.1f s", outage.Seconds())
		if at := heartbeat(v.node); at.After(record.Stopped) {
			text += fmt.Sprintf(", and reported Ready after %.0f s", at.Sub(record.Stopped).Seconds())
		}
	}
	if record.Failure != "" {
		text += fmt.Sprintf("; %s was taken back: %s", record.Order.To, record.Failure)
	}
	if record.Left != "" {
		text += "; left over: " + record.Left
	}

	return text
}

// maxText is what an event may have.
const maxText = 900

func clip(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}

// release takes the node into use again and gives the turn to the next.
func (a *Attendant) release(ctx context.Context, node *corev1.Node, change drain.Change) error {
	if err := a.drain.Uncordon(ctx, node, change); err != nil {
		return err
	}
	return a.turn.Give(ctx)
}

func (a *Attendant) say(kind, reason, text string) {
	a.recorder.Record(event.Node(a.cfg.Node), kind, reason, text)
}
