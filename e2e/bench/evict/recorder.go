package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

// recorder fills a record from watches of the pods of a namespace and of a node.
type recorder struct {
	client          kubernetes.Interface
	namespace, node string
	began           time.Time
	group           sync.WaitGroup
	watches         []watch.Interface

	mu     sync.Mutex // guards what follows
	record *record
	ended  bool // a watch has ended by itself
	done   bool // pods are not noted any more
}

func newRecorder(client kubernetes.Interface, namespace, node string) *recorder {
	return &recorder{
		client:    client,
		namespace: namespace,
		node:      node,
		record:    newRecord(),
	}
}

// start watches from now on, until stop.
func (r *recorder) start(ctx context.Context) error {
	r.began = time.Now()
	pods, err := r.client.CoreV1().Pods(r.namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}

	name := fields.OneTermEqualSelector("metadata.name", r.node).String()
	nodes, err := r.client.CoreV1().Nodes().Watch(ctx, metav1.ListOptions{FieldSelector: name})
	if err != nil {
		pods.Stop()
		return err
	}

	r.watches = []watch.Interface{pods, nodes}
	for _, w := range r.watches {
		r.group.Go(func() { r.follow(w) })
	}

	return nil
}

// follow notes what a watch shows until it ends.
func (r *recorder) follow(w watch.Interface) {
	for e := range w.ResultChan() {
		r.note(e, time.Now())
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

func (r *recorder) note(e watch.Event, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if e.Type == watch.Deleted {
		// Its last state before that was seen.
		return
	}

	switch o := e.Object.(type) {
	case *corev1.Pod:
		if !r.done {
			r.record.notePod(o, now)
		}

	case *corev1.Node:
		r.record.noteNode(o, now)
	}
}

// stop ends the watches. It is an error when one has ended before: something may have been missed.
func (r *recorder) stop() error {
	r.mu.Lock()
	ended := r.ended
	r.mu.Unlock()

	for _, w := range r.watches {
		w.Stop()
	}

	r.group.Wait()
	if ended {
		return errors.New("a watch ended before the case did")
	}

	return nil
}

// missed notes an error of a wait; nil is not one.
func (r *recorder) missed(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.missed = append(r.record.missed, err.Error())
}

// started reports whether that many pods have run or failed.
func (r *recorder) started(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.record.pods {
		if !l.running.IsZero() || !l.failed.IsZero() {
			n--
		}
	}
	return n <= 0
}

// evicted reports whether all the pods have been.
func (r *recorder) evicted(names []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.ContainsFunc(names, func(name string) bool {
		l := r.record.pods[name]
		return l == nil || !isEvicted(&l.last)
	})
}

// hasHad reports whether the node has or had the condition.
func (r *recorder) hasHad(t corev1.NodeConditionType) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record.node.conditions[t] != nil
}

func (r *recorder) underPressure() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record.underPressure()
}

// collect adds the events of the pods, and those of the node since start, to the record. What happens to pods
// after it is not part of that.
func (r *recorder) collect(ctx context.Context) error {
	ofPods, err := r.client.CoreV1().Events(r.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}

	// Those of Nodes are in the default namespace.
	name := fields.OneTermEqualSelector("involvedObject.name", r.node).String()
	ofNode, err := r.client.CoreV1().Events(metav1.NamespaceDefault).List(
		ctx, metav1.ListOptions{FieldSelector: name})
	if err != nil {
		return err
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.done = true

	for _, e := range ofPods.Items {
		l := r.record.pods[e.InvolvedObject.Name]
		if l != nil && e.InvolvedObject.UID == l.last.UID {
			l.events = append(l.events, eventOf(e))
		}
	}

	for _, e := range ofNode.Items {
		// Times of events have whole seconds.
		isNew := !e.LastTimestamp.Time.Before(r.began.Truncate(time.Second))
		if isNew && !isStart(e.Reason) {
			e.Message = strings.ReplaceAll(e.Message, r.node, "NODE")
			r.record.node.events = append(r.record.node.events, eventOf(e))
		}
	}

	return nil
}

// isStart reports whether a Node has the event at each start of its agent.
func isStart(reason string) bool {
	return reason == "Starting" || reason == "NodeReady" || reason == "NodeAllocatableEnforced" ||
		reason == "RegisteredNode" || reason == "CgroupV1" || reason == "InvalidDiskCapacity" ||
		strings.HasPrefix(reason, "NodeHasSufficient") || reason == "NodeHasNoDiskPressure"
}

func eventOf(e corev1.Event) event {
	return event{
		kind:        e.Type,
		reason:      e.Reason,
		message:     e.Message,
		annotations: e.Annotations,
		count:       max(int(e.Count), 1),
	}
}
