package attend

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// unfit is why it cannot be said that the node works with what the order has brought; empty: it does. Seen
// from the API, and from a pod that the node runs.
func (a *Attendant) unfit(ctx context.Context, v view) string {
	if !isReady(v.node) {
		return "it is not Ready"
	}

	runtime := v.node.Status.NodeInfo.ContainerRuntimeVersion
	if p := a.cfg.RuntimePrefix; p != "" && strings.HasPrefix(runtime, p) != (v.order.To != swap.Out) {
		return "its runtime is " + runtime
	}

	record := v.record
	if record.Stopped.IsZero() {
		// The agent has run on. It may not write its status for minutes, but its Lease.
		return a.silent(ctx, record.Switched)
	}
	if why := a.stale(ctx, heartbeat(v.node), record.Switched); why != "" {
		return why
	}
	if a.cfg.Drains && a.started.Before(record.Switched) {
		return "this pod is from before"
	}
	return ""
}

// stale is why a status may be one of the agent before. It has whole seconds: one of the second of the switch
// counts when the agent has lived on for as long as it takes to correct it.
func (a *Attendant) stale(ctx context.Context, heartbeat, switched time.Time) string {
	second := switched.Truncate(time.Second)
	switch {
	case heartbeat.Before(second):
		return "its status is from before"
	case heartbeat.Before(second.Add(time.Second)):
		return a.silent(ctx, switched.Add(statusInterval))
	}
	return ""
}

// statusInterval is how often an agent looks whether its status has changed.
const statusInterval = 10 * time.Second

// silent is why the agent is not known to live.
func (a *Attendant) silent(ctx context.Context, since time.Time) string {
	lease, err := a.leases.Get(ctx, corev1.NamespaceNodeLease, a.cfg.Node)
	if err != nil {
		return fmt.Sprintf("its lease: %v", err)
	}
	if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.Time.Before(since) {
		return "its lease is from before"
	}
	return ""
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
