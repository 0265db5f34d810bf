package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/trivet-node/trivet/e2e/operator/membership"
	"github.com/trivet-node/trivet/e2e/operator/objects"
	"github.com/trivet-node/trivet/e2e/operator/plan"
	"github.com/trivet-node/trivet/e2e/operator/v1alpha1"
)

// seen is what a decision is made of, and what doing it needs beside that.
type seen struct {
	plan.Seen

	clusterID uint64
	pods      map[string]*corev1.Pod
	bound     map[string]bool
	answers   map[string]membership.Answer
}

// observe looks at the objects first and asks etcd after them: a claim or a pod that is not a member's then
// has been one's before, as a member is added before its claim is made.
func (c *Cluster) observe(ctx context.Context, set objects.Set) (seen, error) {
	s := seen{
		Seen: plan.Seen{
			Begun: set.Cluster.Status.ClusterID != "",
			Pods:  map[string]plan.Pod{},
		},
		pods:  map[string]*corev1.Pod{},
		bound: map[string]bool{},
	}
	if err := c.claims(ctx, set, &s); err != nil {
		return s, err
	}
	if err := c.running(ctx, set, &s); err != nil {
		return s, err
	}
	if err := c.restore(ctx, set, &s); err != nil {
		return s, err
	}

	s.answers = membership.Ask(ctx, s.endpoints())
	for name, pod := range s.pods {
		answer, answers := s.answers[name]
		s.Pods[name] = describe(pod, answers, answer.Leads)
	}
	s.members(ctx, set.Cluster)
	return s, nil
}

func (c *Cluster) claims(ctx context.Context, set objects.Set, s *seen) error {
	var list corev1.PersistentVolumeClaimList
	if err := c.list(ctx, set, &list); err != nil {
		return err
	}

	for _, claim := range list.Items {
		s.bound[claim.Name] = claim.Status.Phase == corev1.ClaimBound
		if claim.DeletionTimestamp.IsZero() {
			s.Claims = append(s.Claims, claim.Name)
		} else {
			s.EndingClaims = append(s.EndingClaims, claim.Name)
		}
	}
	return nil
}

func (c *Cluster) running(ctx context.Context, set objects.Set, s *seen) error {
	var list corev1.PodList
	if err := c.list(ctx, set, &list); err != nil {
		return err
	}
	for i := range list.Items {
		s.pods[list.Items[i].Name] = &list.Items[i]
	}
	return nil
}

func (c *Cluster) list(ctx context.Context, set objects.Set, list client.ObjectList) error {
	namespace, labels := client.InNamespace(set.Cluster.Namespace), client.MatchingLabels(set.Labels())
	if err := c.Client.List(ctx, list, namespace, labels); err != nil {
		return fmt.Errorf("list what belongs to %s: %w", set.Cluster.Name, err)
	}
	return nil
}

func (c *Cluster) restore(ctx context.Context, set objects.Set, s *seen) error {
	if set.Cluster.Spec.RestoreFrom == nil {
		return nil
	}

	job := new(batchv1.Job)
	key := client.ObjectKey{Namespace: set.Cluster.Namespace, Name: set.RestoreName()}
	err := c.Client.Get(ctx, key, job)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}

	switch {
	case ended(job, batchv1.JobComplete):
		s.Restore = plan.Done
	case ended(job, batchv1.JobFailed):
		s.Restore = plan.Failed
	default:
		s.Restore = plan.Running
	}
	return nil
}

func ended(job *batchv1.Job, how batchv1.JobConditionType) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Type == how && c.Status == corev1.ConditionTrue
	})
}

func describe(pod *corev1.Pod, answers, leads bool) plan.Pod {
	return plan.Pod{
		Node:    pod.Spec.NodeName,
		Version: pod.Labels[objects.VersionLabel],
		Answers: answers,
		Leads:   leads,
		Ready:   is(pod, corev1.PodReady),
		Ending:  !pod.DeletionTimestamp.IsZero(),
		Ended:   pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded,
	}
}

func is(pod *corev1.Pod, condition corev1.PodConditionType) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == condition && c.Status == corev1.ConditionTrue
	})
}

// endpoints are the client URLs of pods that have an address.
func (s *seen) endpoints() map[string]string {
	all := map[string]string{}
	for name, pod := range s.pods {
		if pod.Status.PodIP != "" {
			all[name] = objects.ClientURL(pod.Status.PodIP)
		}
	}
	return all
}

// members are those that etcd has agreed on, or else those that the status has.
func (s *seen) members(ctx context.Context, cluster *v1alpha1.EtcdCluster) {
	s.Members = remembered(cluster)
	list, err := s.cluster().List(ctx)
	if err != nil {
		return
	}

	s.Majority = true
	s.clusterID = list.ClusterID
	s.Members = nil
	for _, m := range list.Members {
		s.Members = append(s.Members, plan.Member{
			ID:      m.ID,
			Name:    m.Host,
			Learner: m.Learner,
			Started: m.Started,
		})
	}
}

func remembered(cluster *v1alpha1.EtcdCluster) []plan.Member {
	var all []plan.Member
	for _, m := range cluster.Status.Members {
		id, err := strconv.ParseUint(m.ID, 16, 64)
		if err != nil {
			continue
		}

		all = append(all, plan.Member{
			ID:      id,
			Name:    m.Name,
			Learner: m.Learner,
			Started: true,
		})
	}
	return all
}

// cluster is reached at all members that serve clients.
func (s *seen) cluster() membership.Cluster {
	var c membership.Cluster
	endpoints := s.endpoints()
	for _, name := range slices.Sorted(maps.Keys(s.answers)) {
		if s.answers[name].Serves {
			c.Endpoints = append(c.Endpoints, endpoints[name])
		}
	}
	return c
}
