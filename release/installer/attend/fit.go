package attend

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// inspector looks whether the node works with what an order has brought.
type inspector Attendant

// judge says whether the node works.
func (a *inspector) judge(ctx context.Context, v view) error {
	said := a.folder.Word(v.order.ID)
	if said.Works {
		// Said once: until the machine goes on, the status is renewed, and with it since when the node works.
		return nil
	}

	doubt := a.unfit(ctx, v)
	var pending string
	if doubt == "" {
		var err error
		if doubt, pending, err = a.unsettled(ctx, v); err != nil {
			doubt = err.Error()
		}
	}
	if doubt != "" {
		a.cfg.Log.Debug("the node is not confirmed yet", "why", doubt)
		if doubt = clip(doubt); doubt == said.Doubt {
			return nil
		}
		return a.folder.Say(swap.Word{ID: v.order.ID, Doubt: doubt})
	}

	if pending != "" {
		text := clip("the node comes into use, although " + pending)
		(*Attendant)(a).say(corev1.EventTypeWarning, "NotReadyYet", text)
	}
	word := swap.Word{ID: v.order.ID, Works: true}
	if !a.ranOn(v) {
		word.Ready = heartbeat(v.node)
	}
	return a.folder.Say(word)
}

// unfit is why it cannot be said that the node works with what the order has brought; empty: it does. Seen
// from the API, and from a pod that the node runs.
func (a *inspector) unfit(ctx context.Context, v view) string {
	if !isReady(v.node) {
		return "it is not Ready"
	}

	runtime := v.node.Status.NodeInfo.ContainerRuntimeVersion
	if !a.isRuntime(runtime, v.order.To) {
		return "its runtime is " + runtime
	}

	record := v.record
	if a.ranOn(v) {
		// It may not write its status for minutes, but its Lease.
		return a.silent(ctx, record.Switched)
	}
	if heartbeat(v.node).Before(record.Switched.Truncate(time.Second)) {
		return "its status is from before"
	}
	if a.cfg.Drains && a.started.Before(record.Switched) {
		return "this pod is from before"
	}
	return ""
}

// ranOn reports whether the agent has run on. So it does while one version of the runtime follows another
// one, also when the machine was cut off meanwhile, which then says that the agent may have been stopped.
func (a *inspector) ranOn(v view) bool {
	isUpgrade := a.cfg.Drains && !a.cfg.replaces(v.record.From, v.order.To)
	return v.record.Stopped.IsZero() || isUpgrade
}

// isRuntime reports whether a runtime, or the ID of a container of one, is what a state has brought.
func (a *inspector) isRuntime(name string, state swap.State) bool {
	ours := a.cfg.RuntimePrefix
	return ours == "" || strings.HasPrefix(name, ours) == (state != swap.Out)
}

// unsettled is why the pods that were Ready on the node, and stay there, are not what they were; empty: they
// are. What is pending is no reason to keep the node out of use any longer.
func (a *inspector) unsettled(ctx context.Context, v view) (doubt, pending string, err error) {
	if len(v.order.Pods) == 0 {
		return "", "", nil
	}
	pods, err := a.drain.List(ctx)
	if err != nil {
		return "", "", err
	}

	ours := func(container string) bool { return a.isRuntime(container, v.order.To) }
	unmade, unready := compare(v.order.Pods, pods, ours)
	switch {
	case unmade != "":
		return unmade, "", nil
	case unready != "" && time.Since(v.record.Switched) < settleLimit:
		return unready, "", nil
	}
	return "", unready, nil
}

// settleLimit is how long after the switch the node is kept out of use for pods that run and are not Ready:
// they may wait for others, which wait for this node.
const settleLimit = 30 * time.Second

// silent is why the agent is not known to live.
func (a *inspector) silent(ctx context.Context, since time.Time) string {
	renewed, err := a.renewed(ctx)
	if err != nil {
		return err.Error()
	}
	if renewed.Before(since) {
		return "its lease is from before"
	}
	return ""
}

// renewed is when the agent last renewed the node's Lease; zero: never.
func (a *inspector) renewed(ctx context.Context) (at time.Time, err error) {
	lease, err := a.leases.Get(ctx, corev1.NamespaceNodeLease, a.cfg.Node)
	if err != nil {
		return at, fmt.Errorf("its lease: %w", err)
	}
	if lease.Spec.RenewTime != nil {
		at = lease.Spec.RenewTime.Time
	}
	return at, nil
}

// vouch says that the node lives, as long as it does: it is Ready, and its agent has renewed its Lease since
// the node is in use.
func (a *inspector) vouch(ctx context.Context, v view) error {
	if !isReady(v.node) {
		return nil
	}
	renewed, err := a.renewed(ctx)
	if err != nil {
		return err
	}

	word := a.folder.Word(v.order.ID)
	if renewed.Before(trialOf(v.node, a.cfg.Part).Since) || !renewed.After(word.Alive) {
		return nil
	}
	word.ID, word.Works, word.Alive = v.order.ID, true, renewed
	return a.folder.Say(word)
}

// ready is the node's condition, the zero value if it has none.
func ready(node *corev1.Node) corev1.NodeCondition {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c
		}
	}
	return corev1.NodeCondition{}
}

func isReady(node *corev1.Node) bool { return ready(node).Status == corev1.ConditionTrue }

// heartbeat is when the agent last said how the node is.
func heartbeat(node *corev1.Node) time.Time { return ready(node).LastHeartbeatTime.Time }
