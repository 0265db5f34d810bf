// Package lease renews the node's Lease, by which the control plane knows that the node is alive (KEP-589).
package lease

import (
	"context"
	"log/slog"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// API is where the Lease is kept: Of a client.
type API interface {
	Get(ctx context.Context, namespace, name string) (*coordinationv1.Lease, error)
	Create(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error)
	Update(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error)
}

// Of returns the Leases of a client's server.
func Of(c *kube.Client) kube.Objects[coordinationv1.Lease] {
	return kube.Of[coordinationv1.Lease, coordinationv1.LeaseList](
		c, coordinationv1.SchemeGroupVersion, "leases")
}

// Config says whose Lease it is.
type Config struct {
	Node string

	// Duration is after which the node counts as gone. The Lease is renewed four times as often.
	Duration time.Duration

	Owner func() *v1.Node // the Lease is deleted with the Node; nil: not registered
	Log   *slog.Logger
}

// Renewer renews a Lease.
type Renewer struct {
	api API
	cfg Config
}

// New returns a Renewer. It does nothing until Run runs.
func New(api API, cfg Config) *Renewer { return &Renewer{api: api, cfg: cfg} }

// Run renews the Lease until ctx ends. A renewal that fails is repeated within a second.
func (r *Renewer) Run(ctx context.Context) {
	interval := r.cfg.Duration / 4
	var known *coordinationv1.Lease
	for {
		renewed, err := r.renew(ctx, known)
		pause := interval
		if err != nil {
			pause = min(interval, time.Second)
			if ctx.Err() == nil {
				r.cfg.Log.Warn("node lease is not renewed", "node", r.cfg.Node, "err", err)
			}
		}

		// After an error it is nil: the next renewal starts from what the API has.
		known = renewed
		if retry.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// renew renews the Lease that is known, or the one that the API has, or makes one.
func (r *Renewer) renew(ctx context.Context, known *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Duration/4)
	defer cancel()

	if known == nil {
		found, err := r.api.Get(ctx, v1.NamespaceNodeLease, r.cfg.Node)
		if apierrors.IsNotFound(err) {
			return r.api.Create(ctx, r.fill(&coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: v1.NamespaceNodeLease, Name: r.cfg.Node},
			}))
		}

		if err != nil {
			return nil, err
		}

		known = found
	}

	return r.api.Update(ctx, r.fill(known.DeepCopy()))
}

// fill writes into a Lease what a renewal says.
func (r *Renewer) fill(lease *coordinationv1.Lease) *coordinationv1.Lease {
	lease.Spec.HolderIdentity = new(r.cfg.Node)
	lease.Spec.LeaseDurationSeconds = new(int32(r.cfg.Duration / time.Second))
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	if owner := r.cfg.Owner(); owner != nil {
		lease.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "v1",
			Kind:       "Node",
			Name:       owner.Name,
			UID:        owner.UID,
		}}
	}

	return lease
}
