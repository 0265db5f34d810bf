package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/internal/retry"
)

// side is one of the nodes that are compared.
type side struct {
	client    kubernetes.Interface
	node      cluster.Node
	agent     agent
	namespace string
}

func newSide(client kubernetes.Interface, c *cluster.Cluster, node cluster.Node) *side {
	return &side{
		client:    client,
		node:      node,
		agent:     newAgent(client, c, node),
		namespace: "evict-" + node.Name,
	}
}

func (s *side) index(all []*side) int { return slices.Index(all, s) }

// The limits of each wait. A kubelet looks at what a node has left every 10 s, and writes the Node's
// conditions as often.
const (
	startLimit = 90 * time.Second
	evictLimit = 90 * time.Second
	endLimit   = 150 * time.Second
	settleFor  = 12 * time.Second

	// measuredAfter is when a kubelet knows what pods have in their volumes.
	measuredAfter = 25 * time.Second
)

// prepare makes the namespace and the priority class. The image of all pods is brought to the node.
func (s *side) prepare(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	_, err := s.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}

	class := &schedulingv1.PriorityClass{
		ObjectMeta: metav1.ObjectMeta{Name: importantClass},
		Value:      1000,
	}

	_, err = s.client.SchedulingV1().PriorityClasses().Create(ctx, class, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}

	return s.runToEnd(ctx, workload{name: "first", command: []string{"true"}, gone: true})
}

// runToEnd runs a pod that ends by itself.
func (s *side) runToEnd(ctx context.Context, w workload) error {
	if err := s.create(ctx, w); err != nil {
		return err
	}

	err := s.await(ctx, startLimit, "end of pod "+w.name, func(ctx context.Context) (bool, error) {
		pod, err := s.client.CoreV1().Pods(s.namespace).Get(ctx, w.name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if pod.Status.Phase == corev1.PodFailed {
			return false, fmt.Errorf("it failed: %s", pod.Status.Message)
		}

		return pod.Status.Phase == corev1.PodSucceeded, nil
	})
	if err != nil || !w.gone {
		return err
	}

	return s.remove(ctx)
}

// create is repeated until the namespace has its service account.
func (s *side) create(ctx context.Context, w workload) error {
	return s.await(ctx, startLimit, "creation of pod "+w.name, func(ctx context.Context) (bool, error) {
		pod := w.pod(s.node.Name)
		_, err := s.client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{})
		if apierrors.IsForbidden(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// remove deletes all pods of the namespace and waits until they are gone.
func (s *side) remove(ctx context.Context) error {
	pods := s.client.CoreV1().Pods(s.namespace)
	err := pods.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
	if err != nil {
		return err
	}

	return s.await(ctx, endLimit, "pods gone", func(ctx context.Context) (bool, error) {
		list, err := pods.List(ctx, metav1.ListOptions{})
		return err == nil && len(list.Items) == 0, err
	})
}

// await polls until look reports true. Watches that end at the wrong moment are not worth it here: what is
// measured is noted by a recorder.
func (s *side) await(
	ctx context.Context, limit time.Duration, what string, look func(context.Context) (bool, error),
) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()

	for range retry.Every(ctx, 200*time.Millisecond) {
		done, err := look(ctx)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if done {
			return nil
		}
	}

	return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
}

// run carries out a case and returns what was seen. That something did not come in time is part of it.
func (s *side) run(ctx context.Context, c testCase) (*record, error) {
	for _, w := range c.before {
		if err := s.runToEnd(ctx, w); err != nil {
			return nil, err
		}
	}

	have, err := s.agent.free(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.agent.configure(ctx, c.settings(have)); err != nil {
		return nil, err
	}

	r := newRecorder(s.client, s.namespace, s.node.Name)
	if err := r.start(ctx); err != nil {
		return nil, err
	}

	for _, w := range c.pods {
		if err := s.create(ctx, w); err != nil {
			return nil, errors.Join(err, r.stop())
		}
	}

	s.follow(ctx, c, r)

	if err := r.collect(ctx); err != nil {
		return nil, errors.Join(err, r.stop())
	}
	if err := s.remove(ctx); err != nil {
		return nil, errors.Join(err, r.stop())
	}

	// The next case begins on a node without pressure.
	err = s.await(ctx, endLimit, "end of pressure", func(context.Context) (bool, error) {
		return !r.underPressure(), nil
	})
	return r.record, errors.Join(err, r.stop())
}

// follow waits for what a case is about; what does not come is noted.
func (s *side) follow(ctx context.Context, c testCase, r *recorder) {
	await := func(limit time.Duration, what string, done func() bool) {
		look := func(context.Context) (bool, error) { return done(), nil }
		r.missed(s.await(ctx, limit, what, look))
	}

	await(startLimit, "start of all pods", func() bool { return r.started(len(c.pods)) })
	if c.last != nil {
		r.missed(retry.Sleep(ctx, measuredAfter))
	}

	for _, w := range c.last {
		r.missed(s.create(ctx, w))
	}

	if c.condition != "" {
		await(startLimit, "condition "+string(c.condition), func() bool { return r.hasHad(c.condition) })
	}

	for _, w := range c.late {
		r.missed(s.create(ctx, w))
	}

	await(evictLimit, "evictions", func() bool { return r.evicted(c.evicted) })

	// A pod that is evicted wrongly is so by the next look.
	r.missed(retry.Sleep(ctx, settleFor))
}

// restore gives the agent its own configuration back and removes what prepare has made.
func (s *side) restore(ctx context.Context) error {
	err := s.client.CoreV1().Namespaces().Delete(ctx, s.namespace, metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}

	class := s.client.SchedulingV1().PriorityClasses().Delete(ctx, importantClass, metav1.DeleteOptions{})
	if apierrors.IsNotFound(class) {
		class = nil
	}

	return errors.Join(err, class, s.agent.restore(ctx))
}

// sameJSON reports whether two values are the same as JSON.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
