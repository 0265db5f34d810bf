package forget

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
)

// turnLength is how long a process has its turn that does not ask for it again.
const turnLength = 4 * defaultPeriod

// Turn is a Lease that lets one of several processes work. It only saves the others the work: everything
// done is done once, by any of them, so that nothing depends on clocks that agree.
type Turn struct {
	Namespace, Name string // of the Lease
	Identity        string // of this process
	leases          kube.Objects[coordinationv1.Lease]
}

// NewTurn returns the turn of a process that no other one has the identity of.
func NewTurn(client *kube.Client, namespace, name, identity string) *Turn {
	return &Turn{
		Namespace: namespace,
		Name:      name,
		Identity:  identity,
		leases: kube.Of[coordinationv1.Lease, coordinationv1.LeaseList](
			client, coordinationv1.SchemeGroupVersion, "leases"),
	}
}

// take reports whether it is this process' turn, which it is from now on if it is nobody's.
func (t *Turn) take(ctx context.Context, now time.Time) (bool, error) {
	lease, err := t.leases.Get(ctx, t.Namespace, t.Name)
	missing := apierrors.IsNotFound(err)
	switch {
	case missing:
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: t.Namespace, Name: t.Name}}
	case err != nil:
		return false, fmt.Errorf("read Lease %s/%s: %w", t.Namespace, t.Name, err)
	case t.isOfOther(&lease.Spec, now):
		return false, nil
	}

	lease.Spec = coordinationv1.LeaseSpec{
		HolderIdentity:       &t.Identity,
		LeaseDurationSeconds: new(int32(turnLength / time.Second)),
		RenewTime:            &metav1.MicroTime{Time: now},
	}
	if missing {
		_, err = t.leases.Create(ctx, lease)
	} else {
		_, err = t.leases.Update(ctx, lease)
	}

	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		// Another one was faster.
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write Lease %s/%s: %w", t.Namespace, t.Name, err)
	}
	return true, nil
}

// isOfOther reports whether another process has its turn.
func (t *Turn) isOfOther(l *coordinationv1.LeaseSpec, now time.Time) bool {
	held := l.HolderIdentity != nil && *l.HolderIdentity != "" && *l.HolderIdentity != t.Identity
	return held && l.RenewTime != nil && now.Sub(l.RenewTime.Time) < turnLength
}
