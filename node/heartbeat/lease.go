package heartbeat

import (
	"context"
	"time"

	coordination "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// keepLease renews the node's Lease four times in its duration, as kubelet does; a renewal that fails is
// repeated soon.
func (h *Heart) keepLease(ctx context.Context) {
	var lease *coordination.Lease
	interval := h.cfg.LeaseDuration / 4
	for {
		next, err := h.renew(ctx, lease)
		wait := interval
		if err != nil {
			// start over from what the API has
			next, wait = nil, min(interval, time.Second)
			if ctx.Err() == nil {
				h.log.Warn("renew node lease", "node", h.cfg.Name, "err", err)
			}
		}

		lease = next
		if !sleep(ctx, wait) {
			return
		}
	}
}

func (h *Heart) renew(ctx context.Context, known *coordination.Lease) (*coordination.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.LeaseDuration/4)
	defer cancel()

	request := h.leases.Get().Namespace(v1.NamespaceNodeLease).Resource("leases").Name(h.cfg.Name)
	if known == nil {
		known = &coordination.Lease{}
		err := request.Do(ctx).Into(known)
		if apierrors.IsNotFound(err) {
			return h.createLease(ctx)
		}
		if err != nil {
			return nil, err
		}
	}

	lease := known.DeepCopy()
	h.fill(lease)
	out := &coordination.Lease{}
	err := h.leases.Put().Namespace(v1.NamespaceNodeLease).Resource("leases").Name(h.cfg.Name).Body(lease).Do(ctx).Into(out)
	return out, err
}

func (h *Heart) createLease(ctx context.Context) (*coordination.Lease, error) {
	lease := &coordination.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1.NamespaceNodeLease, Name: h.cfg.Name},
	}
	h.fill(lease)
	out := &coordination.Lease{}
	err := h.leases.Post().Namespace(v1.NamespaceNodeLease).Resource("leases").Body(lease).Do(ctx).Into(out)
	return out, err
}

func (h *Heart) fill(lease *coordination.Lease) {
	lease.Spec.HolderIdentity = new(h.cfg.Name)
	lease.Spec.LeaseDurationSeconds = new(int32(h.cfg.LeaseDuration / time.Second))
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	lease.OwnerReferences = h.owner()
}
