// Package turn has the installers of a cluster take turns: a Lease names the one whose node is being changed.
package turn

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
)

// The Lease.
const (
	Namespace = "kube-system"
	name      = "trivet-installer"
)

// duration is after how long without a sign of life somebody else's turn is over: longer than a node is
// changed and changed back, during which its installer may not run.
const duration = 15 * time.Minute

// renewal is how often one's own turn is renewed.
const renewal = time.Minute

// Turn is that of one installer. It is not safe for concurrent use.
type Turn struct {
	leases kube.Objects[coordinationv1.Lease]
	holder string

	// seen is the Lease of somebody else, and since when it has been so: clocks of nodes differ.
	seen  string
	since time.Time

	// given says that this process has given the turn, and has not tried to take it since.
	given bool
}

// New returns the turn of a holder.
func New(leases kube.Objects[coordinationv1.Lease], holder string) *Turn {
	return &Turn{leases: leases, holder: holder}
}

// Take takes the turn, or renews it, and reports whose it is: empty when it is one's own.
func (t *Turn) Take(ctx context.Context) (other string, err error) {
	t.given = false
	lease, err := t.leases.Get(ctx, Namespace, name)
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name}}
		t.sign(lease)
		_, err = t.leases.Create(ctx, lease)
		return t.judge("another one", err)
	}
	if err != nil {
		return "", fmt.Errorf("lease %s/%s: %w", Namespace, name, err)
	}

	holder := held(lease)
	switch {
	case holder == t.holder && time.Since(lease.Spec.RenewTime.Time) < renewal:
		return "", nil
	case holder != t.holder && holder != "" && !t.expired(lease):
		return holder, nil
	}

	t.sign(lease)
	_, err = t.leases.Update(ctx, lease)
	return t.judge("another one", err)
}

// judge makes of the end of a write whose turn it is.
func (t *Turn) judge(other string, err error) (string, error) {
	switch {
	case err == nil:
		t.seen = ""
		return "", nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return other, nil
	}
	return "", fmt.Errorf("lease %s/%s: %w", Namespace, name, err)
}

// expired reports whether somebody else's turn has not been renewed for too long.
func (t *Turn) expired(lease *coordinationv1.Lease) bool {
	if t.seen != lease.ResourceVersion {
		t.seen, t.since = lease.ResourceVersion, time.Now()
	}
	return time.Since(t.since) > duration
}

func (t *Turn) sign(lease *coordinationv1.Lease) {
	now := metav1.NowMicro()
	lease.Spec.HolderIdentity = &t.holder
	lease.Spec.LeaseDurationSeconds = new(int32(duration.Seconds()))
	lease.Spec.AcquireTime = &now
	lease.Spec.RenewTime = &now
}

// held is who has the turn.
func held(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil || lease.Spec.RenewTime == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// Give gives one's turn to the next. To have none is a success, and costs no call once that is known.
func (t *Turn) Give(ctx context.Context) error {
	if t.given {
		return nil
	}

	lease, err := t.leases.Get(ctx, Namespace, name)
	if err == nil && held(lease) == t.holder {
		lease.Spec.HolderIdentity = new("")
		_, err = t.leases.Update(ctx, lease)
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("lease %s/%s: %w", Namespace, name, err)
	}

	// There is none, or it was taken over meanwhile, or given.
	t.given = true
	return nil
}
