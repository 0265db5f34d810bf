package attend

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

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

	pods, err := a.drain.List(ctx)
	if err != nil {
		return 0, err
	}
	if why := a.obstacle(v, pods); why != nil {
		a.say(corev1.EventTypeWarning, "NotBegun", why.Error())
		return refusedPause, a.turn.Give(ctx)
	}

	if err := a.drain.Cordon(ctx, v.node, map[string]any{mark(a.cfg.Part): present}); err != nil {
		return 0, err
	}
	// Before they go: their images may be in no registry, and they come back.
	if err := a.folder.AddImages(drain.Images(pods)); err != nil {
		return 0, err
	}
	if drained, err := a.evict(ctx, v, pods); err != nil || !drained {
		return soon, err
	}
	return soon, a.order(ctx, v)
}

// refusedPause is after how long it is looked again at a node whose exchange was not begun.
const refusedPause = 30 * time.Second

// obstacle is why an exchange is not begun.
func (a *Attendant) obstacle(v view, pods []*corev1.Pod) error {
	switch {
	case !drain.Since(v.node, a.cfg.Part).IsZero():
		// It was begun: the limit of the drain holds.
		return nil
	case !isReady(v.node):
		// It could not be confirmed that it works afterwards.
		return fmt.Errorf("node %s is not Ready: nothing is changed until it is", a.cfg.Node)
	case a.replaces(v):
		return drain.Check(pods)
	}
	return nil
}

// replaces reports whether no container of the node survives the exchange.
func (a *Attendant) replaces(v view) bool {
	return a.cfg.Drains && (v.wanted == swap.Out || v.record.State() == swap.Out)
}

// evict reports whether no pod is left that has to go. A drain that takes too long is given up.
func (a *Attendant) evict(ctx context.Context, v view, pods []*corev1.Pod) (done bool, err error) {
	if !a.replaces(v) {
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
		some := strings.Join(left[:min(len(left), 5)], ", ")
		err = fmt.Errorf("after %s these are left: %s", a.cfg.DrainLimit, some)
	}
	a.say(corev1.EventTypeWarning, "DrainGivenUp", err.Error())
	a.notBefore = time.Now().Add(a.cfg.Pause)
	return false, a.release(ctx, v.node, drain.Change{})
}

// order gives the order.
func (a *Attendant) order(ctx context.Context, v view) error {
	images, err := a.folder.Images()
	if err != nil {
		return err
	}

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

	confirmation := swap.Confirmation{ID: v.order.ID}
	if !v.record.Stopped.IsZero() {
		confirmation.Ready = ready(v.node).LastHeartbeatTime.Time
	}
	return a.folder.Confirm(confirmation)
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

// leave the node in use. If it is as it was before, it has nothing of the installer any more, and this pod
// goes with the label.
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
	if !record.Stopped.IsZero() && record.Failure == "" {
		// The status of a node has whole seconds.
		text += fmt.Sprintf("; the node was without its agent for %.1f s, and Ready after %.0f s",
			record.Switched.Sub(record.Stopped).Seconds(),
			math.Ceil(record.Ready.Sub(record.Stopped).Seconds()))
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
	if err := a.folder.DropImages(); err != nil {
		return err
	}
	if err := a.drain.Uncordon(ctx, node, change); err != nil {
		return err
	}
	return a.turn.Give(ctx)
}

func (a *Attendant) say(kind, reason, text string) {
	a.recorder.Record(event.Node(a.cfg.Node), kind, reason, text)
}
