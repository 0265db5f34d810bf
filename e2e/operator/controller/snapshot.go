package controller

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/trivet-node/trivet/e2e/operator/objects"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

// Snapshot reconciles EtcdSnapshots: a Job takes each.
type Snapshot struct {
	Client client.Client
	Image  string
}

// SetupWithManager has the manager call Reconcile whenever a snapshot or its Job changes.
func (s *Snapshot) SetupWithManager(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).
		For(&v1alpha1.EtcdSnapshot{}).
		Owns(&batchv1.Job{}).
		Complete(s)
}

// Reconcile makes the Job, and reports how it has ended. A snapshot that has ended is not taken again.
func (s *Snapshot) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	snapshot := new(v1alpha1.EtcdSnapshot)
	if err := s.Client.Get(ctx, req.NamespacedName, snapshot); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}

	over := meta.IsStatusConditionTrue(snapshot.Status.Conditions, v1alpha1.Complete) ||
		meta.IsStatusConditionTrue(snapshot.Status.Conditions, v1alpha1.Failed)
	if over || !snapshot.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}

	cluster := new(v1alpha1.EtcdCluster)
	key := client.ObjectKey{Namespace: req.Namespace, Name: snapshot.Spec.Cluster}
	err := s.Client.Get(ctx, key, cluster)
	if apierrors.IsNotFound(err) || err == nil && cluster.Status.Version == "" {
		return ctrl.Result{RequeueAfter: later}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}

	job := objects.Set{Cluster: cluster, Image: s.Image}.SnapshotJob(snapshot)
	if err := client.IgnoreAlreadyExists(s.Client.Create(ctx, job)); err != nil {
		return ctrl.Result{}, fmt.Errorf("create job %s: %w", job.Name, err)
	}
	if err := s.Client.Get(ctx, client.ObjectKeyFromObject(job), job); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}

	return ctrl.Result{}, s.report(ctx, snapshot, job)
}

func (s *Snapshot) report(ctx context.Context, snapshot *v1alpha1.EtcdSnapshot, job *batchv1.Job) error {
	before := snapshot.DeepCopy()
	condition := metav1.Condition{Status: metav1.ConditionTrue, ObservedGeneration: snapshot.Generation}
	switch {
	case ended(job, batchv1.JobComplete):
		snapshot.Status.File = objects.SnapshotFile(snapshot)
		condition.Type = v1alpha1.Complete
		condition.Reason = "Taken"
		condition.Message = "the snapshot is written, and its checksum is right"
	case ended(job, batchv1.JobFailed):
		condition.Type = v1alpha1.Failed
		condition.Reason = "JobFailed"
		condition.Message = "pods of the Job " + job.Name + " have failed"
	default:
		return nil
	}

	meta.SetStatusCondition(&snapshot.Status.Conditions, condition)
	return client.IgnoreNotFound(s.Client.Status().Patch(ctx, snapshot, client.MergeFrom(before)))
}
