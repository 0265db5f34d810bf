package controller

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/trivet-node/trivet/e2e/operator/objects"
	"github.com/trivet-node/trivet/e2e/operator/plan"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

// report writes what was seen, and which step that led to, where it is not what the status has.
func (c *Cluster) report(ctx context.Context, cluster *v1alpha1.EtcdCluster, s seen, step plan.Step) error {
	before := cluster.DeepCopy()
	status := &cluster.Status
	status.ObservedGeneration = cluster.Generation
	status.Selector = labels.SelectorFromSet(objects.Set{Cluster: cluster}.Labels()).String()
	if step.Do == plan.Begin && s.Majority {
		status.ClusterID = strconv.FormatUint(s.clusterID, 16)
	}

	// Without a majority, members are those of the status.
	if s.Begun || status.ClusterID != "" {
		status.Members = s.describeMembers()
	}

	count(status)
	for _, condition := range []metav1.Condition{ready(step), available(s.Majority)} {
		condition.ObservedGeneration = cluster.Generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}

	if reflect.DeepEqual(before.Status, cluster.Status) {
		return nil
	}
	return client.IgnoreNotFound(c.Client.Status().Patch(ctx, cluster, client.MergeFrom(before)))
}

func (s *seen) describeMembers() []v1alpha1.Member {
	var all []v1alpha1.Member
	for _, m := range s.Members {
		pod, answer := s.Pods[m.Name], s.answers[m.Name]
		all = append(all, v1alpha1.Member{
			Name:    m.Name,
			ID:      strconv.FormatUint(m.ID, 16),
			Node:    pod.Node,
			Version: answer.Version,
			Learner: m.Learner,
			Leader:  answer.Leads,
			Ready:   pod.Ready && pod.Answers,
		})
	}

	slices.SortFunc(all, func(a, b v1alpha1.Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// count sums the members up.
func count(status *v1alpha1.EtcdClusterStatus) {
	status.Replicas, status.ReadyReplicas = 0, 0
	var lowest *version.Version
	for _, m := range status.Members {
		if m.Learner {
			continue
		}

		status.Replicas++
		if m.Ready {
			status.ReadyReplicas++
		}
		if v, err := version.ParseSemantic(m.Version); err == nil && (lowest == nil || v.LessThan(lowest)) {
			lowest = v
		}
	}

	// A member that is down has no version for a moment; those that are up speak for it.
	if lowest != nil {
		status.Version = lowest.String()
	}
}

func ready(step plan.Step) metav1.Condition {
	condition := metav1.Condition{
		Type:    v1alpha1.Ready,
		Status:  metav1.ConditionFalse,
		Reason:  step.Reason,
		Message: step.Text,
	}
	if step.Do == plan.Settled {
		condition.Status = metav1.ConditionTrue
	}
	return condition
}

func available(majority bool) metav1.Condition {
	if majority {
		return metav1.Condition{
			Type:    v1alpha1.Available,
			Status:  metav1.ConditionTrue,
			Reason:  "Majority",
			Message: "a majority of the members answers",
		}
	}
	return metav1.Condition{
		Type:    v1alpha1.Available,
		Status:  metav1.ConditionFalse,
		Reason:  plan.NoMajority,
		Message: "no majority of the members answers",
	}
}
