package main

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// record is what was seen of one case on one node.
type record struct {
	pods map[string]*life
	node nodeLife

	// missed is what did not come in its time.
	missed []string
}

// life of a pod, with the moments at which the API first showed something; zero until then.
type life struct {
	created, running, failed time.Time

	// failures is how often it went to phase Failed: more than once is wrong.
	failures int

	last   corev1.Pod // as it was last seen
	events []event
}

// event is what matters of an Event.
type event struct {
	kind, reason, message string
	annotations           map[string]string
	count                 int
}

// nodeLife is what happened to the Node.
type nodeLife struct {
	// conditions are those of pressure that were True, with the moments of that and of their end.
	conditions map[corev1.NodeConditionType]*span

	// shown are status, reason and message of these conditions, in the order in which they were seen.
	shown []string

	// taints of pressure that it had at any time.
	taints []string

	images []int // how many images it said that it has, in the order in which the number changed
	events []event
}

// span of time; end is zero as long as it goes on.
type span struct{ begin, end time.Time }

func newRecord() *record {
	conditions := map[corev1.NodeConditionType]*span{}
	return &record{pods: map[string]*life{}, node: nodeLife{conditions: conditions}}
}

// notePod notes the state of a pod at a moment.
func (r *record) notePod(pod *corev1.Pod, now time.Time) {
	l := r.pods[pod.Name]
	if l == nil {
		l = &life{created: now}
		r.pods[pod.Name] = l
	}

	phase, before := pod.Status.Phase, l.last.Status.Phase
	if phase == corev1.PodRunning && l.running.IsZero() {
		l.running = now
	}

	if phase == corev1.PodFailed && before != corev1.PodFailed {
		l.failures++
		if l.failed.IsZero() {
			l.failed = now
		}
	}

	l.last = *pod
}

// pressure are the conditions that evictions set.
var pressure = []corev1.NodeConditionType{
	corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure,
}

// noteNode notes the state of the node at a moment.
func (r *record) noteNode(node *corev1.Node, now time.Time) {
	for _, c := range node.Status.Conditions {
		if !slices.Contains(pressure, c.Type) {
			continue
		}

		s := r.node.conditions[c.Type]
		isTrue := c.Status == corev1.ConditionTrue
		switch {
		case isTrue && s == nil:
			r.node.conditions[c.Type] = &span{begin: now}
		case isTrue:
			s.end = time.Time{}
		case s != nil && s.end.IsZero():
			s.end = now
		}

		if r.node.conditions[c.Type] == nil {
			continue
		}

		text := strings.Join([]string{string(c.Type), string(c.Status), c.Reason, c.Message}, " ")
		if !slices.Contains(r.node.shown, text) {
			r.node.shown = append(r.node.shown, text)
		}
	}

	for _, t := range node.Spec.Taints {
		taint := t.Key + ":" + string(t.Effect)
		if strings.Contains(taint, "pressure") && !slices.Contains(r.node.taints, taint) {
			r.node.taints = append(r.node.taints, taint)
		}
	}

	images := len(node.Status.Images)
	if n := len(r.node.images); n == 0 || r.node.images[n-1] != images {
		r.node.images = append(r.node.images, images)
	}
}

// underPressure reports whether the node has a condition of pressure or a taint by one now.
func (r *record) underPressure() bool {
	for _, s := range r.node.conditions {
		if s.end.IsZero() {
			return true
		}
	}
	return false
}

func isEvicted(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted"
}

// order are the names of the pods that were evicted after they had run, in the order in which the API showed
// it.
func (r *record) order() []string {
	var names []string
	for name, l := range r.pods {
		if isEvicted(&l.last) && !l.running.IsZero() {
			names = append(names, name)
		}
	}

	slices.SortFunc(names, func(a, b string) int { return r.pods[a].failed.Compare(r.pods[b].failed) })
	return names
}

// refused are the names of the pods that failed without having run.
func (r *record) refused() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r.pods)) {
		l := r.pods[name]
		if l.last.Status.Phase == corev1.PodFailed && l.running.IsZero() {
			names = append(names, name)
		}
	}
	return names
}

// after is how long a pod ran under pressure before it was seen evicted: since the last pod that was seen
// running before that.
func (r *record) after(name string) time.Duration {
	failed := r.pods[name].failed
	var last time.Time
	for _, l := range r.pods {
		if l.running.Before(failed) && l.running.After(last) {
			last = l.running
		}
	}
	return failed.Sub(last)
}

// lasted is how long the node had a condition; zero for never.
func (s *span) lasted() time.Duration {
	if s == nil || s.end.IsZero() {
		return 0
	}
	return s.end.Sub(s.begin)
}
