package nodestatus

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/history"
)

// ownNode is the Node object as the API last showed it.
type ownNode struct {
	// changed is filled when a look at the node is due at once.
	changed chan struct{}

	// mu guards the Node, gone: somebody has deleted it, lag: whether the API gives earlier versions, and
	// doubted: from when on the status is in doubt, since it has given one, and none that counts after it;
	// zero if it has not.
	mu      sync.Mutex
	node    *v1.Node
	gone    bool
	lag     history.Lag
	doubted time.Time
}

// settling is how long an earlier version than what a report was answered with may be one that was on its way
// when the answer came.
const settling = time.Second

func (o *ownNode) get() *v1.Node {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.node
}

func (o *ownNode) isGone() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gone
}

// isDoubted reports whether the API may have another status than the known one: its data may have been
// restored from a backup.
func (o *ownNode) isDoubted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.doubted.IsZero() && !time.Now().Before(o.doubted)
}

// pause is how long the next look may wait: no longer than usual.
func (o *ownNode) pause(usual time.Duration) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.doubted.IsZero() {
		return usual
	}
	if left := time.Until(o.doubted); left > 0 {
		return min(usual, left)
	}
	return min(usual, doubtedCheck)
}

// doubt says that the API has nothing but earlier versions.
func (o *ownNode) doubt() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.doubtLocked(time.Now())
}

// doubtLocked has the status sent from a time on, for callers that hold the lock. An earlier doubt stays.
func (o *ownNode) doubtLocked(from time.Time) {
	if o.doubted.IsZero() || from.Before(o.doubted) {
		o.doubted = from
		o.wake()
	}
}

// saw keeps a version of the Node that is newer than the known one. One that was made again is. An earlier
// one counts when the API has given none but such for a minute: its data were restored.
func (o *ownNode) saw(n *v1.Node) { o.sawAt(n, time.Now()) }

func (o *ownNode) sawAt(n *v1.Node, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()

	same := o.node != nil && o.node.UID == n.UID
	if o.lag.Behind(same && history.IsEarlier(n.ResourceVersion, o.node.ResourceVersion), now) {
		o.doubtLocked(now.Add(settling))
		return
	}
	o.doubted = time.Time{}
	if same && n.ResourceVersion == o.node.ResourceVersion {
		return
	}
	if o.node != nil && !slices.Equal(o.node.Spec.PodCIDRs, n.Spec.PodCIDRs) {
		o.wake()
	}

	n.ManagedFields = nil
	o.node = n
}

// followed takes what the watch shows: nil if there is no Node.
func (o *ownNode) followed(n *v1.Node) {
	o.mu.Lock()
	o.gone = n == nil
	o.mu.Unlock()

	if n == nil {
		o.wake()
		return
	}
	o.saw(n)
}

// wake has the node looked at without waiting.
func (o *ownNode) wake() {
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// follow watches the Node until ctx ends.
func (r *Reporter) follow(ctx context.Context) {
	follower := kube.NewFollower(r.nodes, "", r.cfg.Name, func(n *v1.Node) error {
		r.own.followed(n)
		return nil
	})
	pauses := watchPauses
	for ctx.Err() == nil {
		start := time.Now()
		err := follower.Run(ctx)
		if err != nil {
			r.cfg.Log.Debug("node is not followed", "node", r.cfg.Name, "err", err)
		}
		if errors.Is(err, history.ErrEarlier) {
			r.own.doubt()
		}

		// One that has worked for long failed for another reason than the last one.
		if time.Since(start) > watchPauses.Max {
			pauses.Reset()
		}
		if pauses.Wait(ctx) != nil {
			return
		}
	}
}

// refreshTimeout bounds a read of the Node: a pod waits for it.
const refreshTimeout = 5 * time.Second

// Refresh reads the Node from the API, for a decision that cannot wait for the watch: pods that were bound
// because of a label would be refused for good without it. If it cannot be read, the known one counts.
// Callers that come while it is being read, which may have begun too early for them, share the next answer.
func (r *Reporter) Refresh(ctx context.Context) {
	called := time.Now()
	r.refreshing.Lock()
	defer r.refreshing.Unlock()

	if r.refreshed.After(called) {
		return
	}

	r.refreshed = time.Now()

	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()

	node, err := r.nodes.Get(ctx, "", r.cfg.Name)
	if err != nil {
		r.cfg.Log.Debug("node is not read", "node", r.cfg.Name, "err", err)
		return
	}

	r.own.saw(node)
}

// Known returns the Node as last seen or, as long as the API has shown none, what it will be registered with.
func (r *Reporter) Known() *v1.Node {
	if n := r.Node(); n != nil {
		return n
	}
	return &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: r.cfg.Name, Labels: r.cfg.labels()},
		Spec:       v1.NodeSpec{Taints: r.cfg.taints()},
	}
}
