package controller

import (
	"context"
	"fmt"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/trivet-node/trivet/e2e/operator/objects"
	"github.com/trivet-node/trivet/e2e/operator/plan"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

// act does a step. Each may be done twice.
func (c *Cluster) act(ctx context.Context, set objects.Set, s seen, step plan.Step) error {
	if err := c.gate(ctx, s); err != nil {
		return err
	}

	namespace, name := set.Cluster.Namespace, step.Member
	switch step.Do {
	case plan.CreateClaim:
		return client.IgnoreAlreadyExists(c.Client.Create(ctx, set.Claim(name)))
	case plan.DeleteClaim:
		return c.delete(ctx, &corev1.PersistentVolumeClaim{}, namespace, name)
	case plan.CreatePod:
		pod := set.Pod(name, s.names(name), !s.Begun, s.bound[name])
		return client.IgnoreAlreadyExists(c.Client.Create(ctx, pod))
	case plan.DeletePod:
		return c.delete(ctx, &corev1.Pod{}, namespace, name)
	case plan.EvictPod:
		return c.evict(ctx, s.pods[name])
	case plan.CreateRestore:
		return c.createRestore(ctx, set, name)
	case plan.DeleteRestore:
		return c.delete(ctx, &batchv1.Job{}, namespace, set.RestoreName())
	case plan.AddLearner:
		return s.cluster().AddLearner(ctx, set.PeerURL(name))
	case plan.Promote:
		return s.cluster().Promote(ctx, step.ID)
	case plan.RemoveMember:
		return s.cluster().Remove(ctx, step.ID)
	case plan.Begin:
		if s.clusterID == 0 {
			return fmt.Errorf("%s does not say yet which cluster it is of", name)
		}
	}
	return nil
}

// names are those of all members and of the one that is made.
func (s *seen) names(made string) []string {
	names := []string{made}
	for _, m := range s.Members {
		if m.Name != made {
			names = append(names, m.Name)
		}
	}
	return names
}

func (c *Cluster) delete(ctx context.Context, object client.Object, namespace, name string) error {
	object.SetNamespace(namespace)
	object.SetName(name)
	err := c.Client.Delete(ctx, object, client.PropagationPolicy(metav1.DeletePropagationBackground))
	return client.IgnoreNotFound(err)
}

// evict asks the PodDisruptionBudget, so that a member is not restarted while somebody drains the node of
// another one. What is evicted is the pod that was seen, not one that has its name now.
func (c *Cluster) evict(ctx context.Context, pod *corev1.Pod) error {
	eviction := &policyv1.Eviction{
		DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}},
	}
	return client.IgnoreNotFound(c.Client.SubResource("eviction").Create(ctx, pod, eviction))
}

func (c *Cluster) createRestore(ctx context.Context, set objects.Set, member string) error {
	snapshot := new(v1alpha1.EtcdSnapshot)
	key := client.ObjectKey{
		Namespace: set.Cluster.Namespace,
		Name:      set.Cluster.Spec.RestoreFrom.Snapshot,
	}
	if err := c.Client.Get(ctx, key, snapshot); err != nil {
		return fmt.Errorf("restore from %s: %w", key.Name, err)
	}
	if snapshot.Status.File == "" {
		return fmt.Errorf("restore from %s: the snapshot is not complete", key.Name)
	}
	return client.IgnoreAlreadyExists(c.Client.Create(ctx, set.RestoreJob(member, snapshot)))
}

// gate opens the readiness gate of members that vote, so that Services lead to them.
func (c *Cluster) gate(ctx context.Context, s seen) error {
	for _, m := range s.Members {
		pod := s.pods[m.Name]
		if m.Learner || pod == nil || is(pod, objects.Voting) {
			continue
		}

		patch := fmt.Appendf(nil, `{"status": {"conditions": [{"type": %q, "status": "True",
			"reason": "Member", "lastTransitionTime": %q}]}}`,
			objects.Voting, metav1.Now().UTC().Format("2006-01-02T15:04:05Z"))
		change := client.RawPatch(types.StrategicMergePatchType, patch)
		err := c.Client.Status().Patch(ctx, pod.DeepCopy(), change)
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("open the readiness gate of %s: %w", m.Name, err)
		}
	}
	return nil
}
