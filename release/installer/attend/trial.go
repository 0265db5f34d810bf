package attend

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// trial is the annotation of a node that is in use again, with what may be taken back.
type trial struct {
	Order string `json:"order"`
	State string `json:"state"`

	// Since is when the node came into use again, Cordoned how long it was not in use.
	Since    time.Time `json:"since"`
	Cordoned string    `json:"cordoned"`
}

// trialMark is the annotation's name.
func trialMark(part string) string { return mark(part) + "-trial" }

// trialOf is the annotation of a node, the zero value if there is none.
func trialOf(node *corev1.Node, part string) (t trial) {
	if json.Unmarshal([]byte(node.Annotations[trialMark(part)]), &t) != nil {
		return trial{}
	}
	return t
}

// onTrial is a part that a node has on trial, but the one that is left out; empty: none. What looks like the
// annotation of one, and is none, holds nobody up.
func onTrial(node *corev1.Node, but string) string {
	for _, part := range []string{"cri", "node"} {
		if part != but && trialOf(node, part).Order != "" {
			return part
		}
	}
	return ""
}

// lend has the node in use while it is on trial. The turn is kept: what is on trial comes to no other node.
func (a *Attendant) lend(ctx context.Context, v view) error {
	since := drain.Since(v.node, a.cfg.Part)
	if since.IsZero() {
		return (*inspector)(a).vouch(ctx, v)
	}

	t := trial{
		Order:    v.order.ID,
		State:    v.order.To.String(),
		Since:    time.Now().UTC().Truncate(time.Second),
		Cordoned: seconds(time.Since(since)),
	}
	text, err := json.Marshal(t)
	if err != nil {
		return err
	}
	change := drain.Change{Annotations: map[string]any{trialMark(a.cfg.Part): string(text)}}
	if err := a.drain.Uncordon(ctx, v.node, change); err != nil {
		return err
	}

	a.say(corev1.EventTypeNormal, "OnTrial", clip(fmt.Sprintf("%s has the seat of %s on trial; the node was "+
		"out of use for %s", v.order.To, a.cfg.Part, t.Cordoned)))
	return nil
}

// recall has the node out of use, if it is not: the machine goes back, or somebody has taken the mark away.
func (a *Attendant) recall(ctx context.Context, v view) error {
	if !drain.Since(v.node, a.cfg.Part).IsZero() {
		return nil
	}
	change := drain.Change{
		Labels:      map[string]any{mark(a.cfg.Part): present},
		Annotations: map[string]any{trialMark(a.cfg.Part): nil},
	}
	return a.drain.Cordon(ctx, v.node, change)
}

// retreat has the node out of use again, and its pods go elsewhere if the way back would end them.
func (a *Attendant) retreat(ctx context.Context, v view) error {
	if a.folder.Word(v.order.ID).Drained {
		return nil
	}
	wasInUse := drain.Since(v.node, a.cfg.Part).IsZero()
	if err := a.recall(ctx, v); err != nil {
		return err
	}

	if a.cfg.replaces(v.record.From, v.order.To) {
		if wasInUse {
			// A pod may have come until now: the next look lists them.
			return nil
		}

		pods, err := a.drain.List(ctx)
		if err != nil {
			return err
		}
		left, err := a.drain.Evict(ctx, pods)
		if err != nil || len(left) > 0 {
			return err
		}
	}
	return a.folder.Say(swap.Word{ID: v.order.ID, Drained: true})
}
