// Package controller brings etcd clusters to what their EtcdClusters say, and takes EtcdSnapshots. It
// observes, has package plan decide, does one step, and writes the status.
package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/trivet-node/trivet/e2e/operator/membership"
	"github.com/trivet-node/trivet/e2e/operator/objects"
	"github.com/trivet-node/trivet/e2e/operator/plan"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

const (
	// atOnce is when to look again after a step that has changed something.
	atOnce = 20 * time.Millisecond

	// soon is when to look again at what no watch reports: whether a member answers, or has caught up.
	soon = 500 * time.Millisecond

	// later is when to look again at a cluster that is as it should be.
	later = 10 * time.Second
)

// Cluster reconciles EtcdClusters. Client must not read pods, claims and Jobs from a cache: a decision about
// members is made of what is there now.
type Cluster struct {
	Client client.Client

	// Image of etcd, without tag.
	Image string
}

// SetupWithManager has the manager call Reconcile whenever a cluster, or what belongs to it, changes.
func (c *Cluster) SetupWithManager(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).
		For(&v1alpha1.EtcdCluster{}).
		Owns(&corev1.Pod{}).
		Owns(&corev1.PersistentVolumeClaim{}).
		Owns(&corev1.Service{}).
		Owns(&policyv1.PodDisruptionBudget{}).
		Owns(&batchv1.Job{}).
		Complete(c)
}

// Reconcile does the next step of one cluster.
func (c *Cluster) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := new(v1alpha1.EtcdCluster)
	err := c.Client.Get(ctx, req.NamespacedName, cluster)
	if apierrors.IsNotFound(err) || err == nil && !cluster.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}

	set := objects.Set{Cluster: cluster, Image: c.Image}
	if err := c.share(ctx, set); err != nil {
		return ctrl.Result{}, err
	}

	seen, err := c.observe(ctx, set)
	if err != nil {
		return ctrl.Result{}, err
	}

	step := plan.Decide(wanted(cluster), seen.Seen)
	acted := c.act(ctx, set, seen, step)
	if acted != nil {
		step.Text = fmt.Sprintf("%s: %v", step.Text, acted)
	}
	if err := c.report(ctx, cluster, seen, step); err != nil {
		return ctrl.Result{}, errors.Join(acted, err)
	}

	return next(ctx, step, acted)
}

func wanted(cluster *v1alpha1.EtcdCluster) plan.Want {
	return plan.Want{
		Cluster:  cluster.Name,
		Replicas: int(cluster.Spec.Replicas),
		Version:  cluster.Spec.Version,
		Restored: cluster.Spec.RestoreFrom != nil,
	}
}

// next says when to look again. What is refused for the moment is no error.
func next(ctx context.Context, step plan.Step, err error) (ctrl.Result, error) {
	after := soon
	switch {
	case errors.Is(err, membership.ErrNotCaughtUp), apierrors.IsTooManyRequests(err):
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("%s: %w", step, err)
	case step.Do == plan.Settled:
		after = later
	case step.Do != plan.Wait:
		after = atOnce
		log.FromContext(ctx).Info("step done", "step", step.String(), "why", step.Text)
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// share makes what all members have in common, where it is not there.
func (c *Cluster) share(ctx context.Context, set objects.Set) error {
	for _, object := range []client.Object{set.Peers(), set.Clients(), set.Budget()} {
		err := c.Client.Get(ctx, client.ObjectKeyFromObject(object), object)
		if apierrors.IsNotFound(err) {
			err = client.IgnoreAlreadyExists(c.Client.Create(ctx, object))
		}
		if err != nil {
			return fmt.Errorf("create %T %s: %w", object, object.GetName(), err)
		}
	}
	return nil
}
