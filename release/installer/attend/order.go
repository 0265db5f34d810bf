package attend

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// begin takes the turn, drains the node and gives the order. What does not come to the order in time is given
// up, whatever the reason: the node is not out of use without an end.
func (a *Attendant) begin(ctx context.Context, v view) (time.Duration, error) {
	since := drain.Since(v.node, a.cfg.Part)
	pause := time.Until(a.notBefore)
	switch {
	case pause > 0 && since.IsZero():
		return pause, a.turn.Give(ctx)
	case pause > 0:
		// Another write came between, or the API server did not answer.
		return soon, a.release(ctx, v.node, drain.Change{})
	}

	why := a.advance(ctx, v)
	if why == nil {
		return soon, nil
	}
	if !since.IsZero() && time.Since(since) >= a.cfg.DrainLimit {
		return soon, a.abandon(ctx, v, why)
	}
	if since.IsZero() && isFailure(ctx, why) {
		why = a.refuse(ctx, why.Error())
	}

	if w, isWait := errors.AsType[wait](why); isWait {
		a.cfg.Log.Info("waits", "node", a.cfg.Node, "why", w.why)
		return w.pause, nil
	}
	return 0, why
}

// isFailure reports whether an error is one that may stay: no reason to wait, and no write that came between.
func isFailure(ctx context.Context, err error) bool {
	_, isWait := errors.AsType[wait](err)
	return !isWait && !apierrors.IsConflict(err) && ctx.Err() == nil
}

// refuse begins nothing, and gives the turn to the next.
func (a *Attendant) refuse(ctx context.Context, why string) error {
	a.say(corev1.EventTypeWarning, "NotBegun", clip(why))
	if err := a.turn.Give(ctx); err != nil {
		return err
	}
	return wait{why, refusedPause}
}

// refusedPause is after how long it is looked again at a node whose exchange was not begun.
const refusedPause = 30 * time.Second

// abandon gives a drain up.
func (a *Attendant) abandon(ctx context.Context, v view, why error) error {
	text := fmt.Sprintf("after %s: %v", a.cfg.DrainLimit, why)
	a.say(corev1.EventTypeWarning, "DrainGivenUp", clip(text))
	a.notBefore = time.Now().Add(a.cfg.Pause)
	return a.release(ctx, v.node, drain.Change{})
}

// wait is a reason to go on later.
type wait struct {
	why   string
	pause time.Duration
}

func (w wait) Error() string { return w.why }

// advance goes on with an exchange until the order is given; the error is what it waits for.
func (a *Attendant) advance(ctx context.Context, v view) error {
	idle, err := a.host.Idle(ctx)
	if err != nil {
		return err
	}
	if !idle {
		return wait{"the machine has not ended yet what it did before", soon}
	}

	if by := drain.Owner(v.node); by != "" && by != a.cfg.Part {
		return wait{"node " + a.cfg.Node + " is cordoned by the installer of " + by, turnPause}
	}
	if part := onTrial(v.node, a.cfg.Part); part != "" {
		return wait{"node " + a.cfg.Node + " has " + part + " on trial", turnPause}
	}
	other, err := a.turn.Take(ctx)
	if err != nil {
		return err
	}
	if other != "" {
		return wait{"it is the turn of " + other, turnPause}
	}
	pods, err := a.drain.List(ctx)
	if err != nil {
		return err
	}

	if drain.Owner(v.node) == "" {
		return a.cordon(ctx, v, pods)
	}
	if a.cfg.replaces(v.record.State(), v.wanted) {
		if err := a.empty(ctx, pods); err != nil {
			return err
		}
	}

	// Another version may have gone on from here.
	state, err := a.host.Stage()
	if err != nil {
		return err
	}
	if err := a.give(v, pods); err != nil {
		return err
	}
	return a.host.Launch(ctx, state)
}

// cordon has the node out of use, if nothing stands in the way. The next look lists the pods again: some may
// have come to the node since.
func (a *Attendant) cordon(ctx context.Context, v view, pods []*corev1.Pod) error {
	if err := a.check(ctx, v, pods); err != nil {
		return err
	}
	labels := map[string]any{mark(a.cfg.Part): present}
	if err := a.drain.Cordon(ctx, v.node, drain.Change{Labels: labels}); err != nil {
		return err
	}
	return wait{"node " + a.cfg.Node + " was cordoned just now", soon}
}

// check finds what stands in the way, while nothing is changed.
func (a *Attendant) check(ctx context.Context, v view, pods []*corev1.Pod) error {
	why, err := a.obstacle(ctx, v, pods)
	if err != nil {
		return err
	}
	if why != "" {
		return a.refuse(ctx, why)
	}

	// Without room for the files there is nothing to drain the node for.
	_, err = a.host.Stage()
	return err
}

// empty has the pods go that do not stay on the node.
func (a *Attendant) empty(ctx context.Context, pods []*corev1.Pod) error {
	// Before they go: their images may be in no registry, and they come back.
	if err := a.folder.AddImages(drain.Images(pods)); err != nil {
		return err
	}
	left, err := a.drain.Evict(ctx, pods)
	if err == nil && len(left) > 0 {
		err = wait{"these pods are left: " + strings.Join(left[:min(len(left), 5)], ", "), soon}
	}
	return err
}

// obstacle is why an exchange is not begun; empty: nothing.
func (a *Attendant) obstacle(ctx context.Context, v view, pods []*corev1.Pod) (why string, err error) {
	if !isReady(v.node) {
		// It could not be confirmed that it works afterwards.
		return fmt.Sprintf("node %s is not Ready: nothing is changed until it is", a.cfg.Node), nil
	}
	if a.cfg.replaces(v.record.State(), v.wanted) {
		if err := drain.Check(pods); err != nil {
			return err.Error(), nil
		}
	}

	nodes, _, err := a.nodes.List(ctx, "", metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("nodes: %w", err)
	}
	for _, node := range nodes {
		by, failed := drain.Owner(node), node.Annotations[failedMark(a.cfg.Part)]
		switch {
		case node.Name == a.cfg.Node:
		case by != "":
			return fmt.Sprintf("node %s is cordoned by the installer of %s", node.Name, by), nil
		case onTrial(node, "") != "":
			return fmt.Sprintf("node %s has %s on trial", node.Name, onTrial(node, "")), nil
		case v.wanted != swap.Out && failed == string(v.wanted):
			return fmt.Sprintf("node %s has taken %s back: take its label away", node.Name, failed), nil
		}
	}
	return "", nil
}

// replaces reports whether no container of the node survives the exchange of two states.
func (c Config) replaces(from, to swap.State) bool {
	return c.Drains && (from == swap.Out || to == swap.Out)
}

// give gives the order. What is Ready of the pods has to be so again.
func (a *Attendant) give(v view, pods []*corev1.Pod) error {
	images, err := a.folder.Images()
	if err != nil {
		return err
	}
	return a.folder.Give(swap.Order{
		ID:      strings.ToLower(rand.Text()[:8]),
		Given:   time.Now(),
		To:      v.wanted,
		Version: a.cfg.Version,
		Trial:   a.cfg.Trial,
		Prove:   a.cfg.Prove,
		Images:  images,
		Pods:    residents(pods),
	})
}

// finish orders what the node has once more: what could not be taken away may go now.
func (a *Attendant) finish(ctx context.Context, v view) (time.Duration, error) {
	if pause := finishPause - time.Since(v.record.Taken); pause > 0 {
		return pause, nil
	}
	if idle, err := a.host.Idle(ctx); err != nil || !idle {
		return soon, err
	}

	state, err := a.host.Stage()
	if err != nil {
		return 0, err
	}
	if err := a.give(v, nil); err != nil {
		return 0, err
	}
	return soon, a.host.Launch(ctx, state)
}

// finishPause is how often at most that is tried.
const finishPause = 10 * time.Minute

// accompany an order: the machine carries it out, this process says whether the node works, and has it in use
// or not as the phase calls for.
func (a *Attendant) accompany(ctx context.Context, v view) (time.Duration, error) {
	// A turn that was lost does not stop what is under way.
	if _, err := a.turn.Take(ctx); err != nil {
		a.cfg.Log.Warn("turn is not renewed", "err", err)
	}
	if v.isNew() && time.Since(v.order.Given) > takeLimit {
		return soon, a.withdraw(ctx, v)
	}

	idle, err := a.host.Idle(ctx)
	if err != nil {
		return 0, err
	}
	if idle {
		// It has to go on.
		state, err := a.host.Stage()
		if err != nil {
			return 0, err
		}
		return soon, a.host.Launch(ctx, state)
	}

	switch v.record.Phase {
	case swap.Switching:
		return soon, a.recall(ctx, v)
	case swap.Trying:
		return soon, errors.Join(a.recall(ctx, v), (*inspector)(a).judge(ctx, v))
	case swap.Proving:
		return lookAgain, a.lend(ctx, v)
	case swap.Retreating:
		return soon, a.retreat(ctx, v)
	case swap.Reverting:
		return soon, a.recall(ctx, v)
	}
	return soon, nil
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

	annotations := map[string]any{
		mark(a.cfg.Part):       record.Order.ID + " " + text,
		failedMark(a.cfg.Part): nil,
	}
	if record.Failure != "" && record.Order.To != swap.Out {
		annotations[failedMark(a.cfg.Part)] = string(record.Order.To)
	}
	if err := a.release(ctx, v.node, drain.Change{Annotations: annotations}); err != nil {
		return err
	}

	kind, reason := corev1.EventTypeNormal, "Exchanged"
	switch {
	case record.Failure != "":
		kind, reason = corev1.EventTypeWarning, "TakenBack"
	case record.Left != "":
		kind, reason = corev1.EventTypeWarning, "LeftOver"
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
	annotations := map[string]any{failedMark(a.cfg.Part): nil}
	if v.record.State() != swap.Out || v.record.Left != "" {
		// What could not be given back is still kept.
		return a.release(ctx, v.node, drain.Change{Annotations: annotations})
	}

	if err := a.host.Sweep(); err != nil {
		return err
	}
	// Before the label goes, and with it this pod, its account and what that may do.
	if err := a.turn.Give(ctx); err != nil {
		return err
	}
	a.flush(ctx)
	annotations[mark(a.cfg.Part)] = nil
	annotations[trialMark(a.cfg.Part)] = nil
	labels := map[string]any{mark(a.cfg.Part): nil}
	return a.drain.Uncordon(ctx, v.node, drain.Change{Labels: labels, Annotations: annotations})
}

// release takes the node into use again and gives the turn to the next.
func (a *Attendant) release(ctx context.Context, node *corev1.Node, change drain.Change) error {
	if err := a.folder.DropImages(); err != nil {
		return err
	}

	annotations := map[string]any{trialMark(a.cfg.Part): nil}
	maps.Copy(annotations, change.Annotations)
	change.Annotations = annotations
	if err := a.drain.Uncordon(ctx, node, change); err != nil {
		return err
	}
	return a.turn.Give(ctx)
}

func (a *Attendant) say(kind, reason, text string) {
	a.recorder.Record(event.Node(a.cfg.Node), kind, reason, text)
}

// flush waits for what was said to be stored. That it is not is no reason to stop.
func (a *Attendant) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	a.recorder.Flush(ctx)
}

const flushLimit = 5 * time.Second
