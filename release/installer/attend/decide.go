package attend

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// view is what is known of the node.
type view struct {
	node   *corev1.Node
	order  swap.Order
	record swap.Record

	// wanted is what should have the seat of the part.
	wanted swap.State
	part   string

	// concluded is the last order that was concluded.
	concluded string
}

// isNew reports that an order was given that the machine has not begun with.
func (v view) isNew() bool { return v.order.ID != "" && v.order.ID != v.record.Order.ID }

// underWay reports that an order was given and is not done.
func (v view) underWay() bool {
	return v.isNew() || (v.record.Phase != swap.Done && v.record.Phase != "")
}

// isMarked reports that the node has marks of an exchange that the state does not call for.
func (v view) isMarked(current swap.State) bool {
	_, labelled := v.node.Labels[mark(v.part)]
	_, tried := v.node.Annotations[trialMark(v.part)]
	return !drain.Since(v.node, v.part).IsZero() || tried || (labelled && current == swap.Out)
}

// step is what there is to do.
type step int

const (
	// rest: all is as it should be, or cannot be.
	rest step = iota

	// accompany an order that is under way.
	accompany

	// conclude an order that is done: the node comes into use again.
	conclude

	// forgive a failure: what had failed is not wanted any more.
	forgive

	// giveUp a drain: what it was for is not wanted any more.
	giveUp

	// begin an exchange.
	begin

	// finish what could not be taken away.
	finish
)

// decide finds out what there is to do.
func decide(v view) step {
	current := v.record.State()
	switch {
	case v.underWay():
		return accompany
	case v.order.ID != "" && v.concluded != v.order.ID:
		return conclude
	case v.wanted == current && !drain.Since(v.node, v.part).IsZero():
		return giveUp
	case v.wanted == current && v.record.Left != "":
		return finish
	case v.wanted == current && v.record.Failure != "":
		return forgive
	case v.wanted == current && v.isMarked(current):
		return giveUp
	case v.wanted == current:
		return rest
	case v.record.Failure != "" && v.record.Order.To == v.wanted:
		// It would fail again, after another drain.
		return rest
	}
	return begin
}
