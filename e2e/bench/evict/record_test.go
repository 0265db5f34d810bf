package main

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// at is a moment of a case, in seconds since its start.
func at(second int) time.Time { return time.Unix(1000, 0).Add(time.Duration(second) * time.Second) }

// seen notes a pod in a phase.
func (r *record) seen(name string, second int, phase corev1.PodPhase, reason string) {
	r.notePod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.PodStatus{Phase: phase, Reason: reason},
	}, at(second))
}

func TestEvictedPodsAreInTheOrderInWhichTheAPIShowedThem(t *testing.T) {
	r := newRecord()
	for _, name := range []string{"a", "b", "c", "done"} {
		r.seen(name, 0, corev1.PodPending, "")
		r.seen(name, 1, corev1.PodRunning, "")
	}

	r.seen("done", 2, corev1.PodSucceeded, "")
	r.seen("c", 5, corev1.PodFailed, "Evicted")
	r.seen("a", 6, corev1.PodFailed, "Evicted")
	r.seen("late", 6, corev1.PodFailed, "Evicted")
	if got := r.order(); !slices.Equal(got, []string{"c", "a"}) {
		t.Errorf("evicted %v", got)
	}
	if got := r.refused(); !slices.Equal(got, []string{"late"}) {
		t.Errorf("refused %v", got)
	}
}

func TestEvictionIsTimedFromTheLastPodThatRanBefore(t *testing.T) {
	r := newRecord()
	r.seen("first", 1, corev1.PodRunning, "")
	r.seen("second", 4, corev1.PodRunning, "")
	r.seen("first", 10, corev1.PodFailed, "Evicted")
	r.seen("after", 11, corev1.PodRunning, "")
	if got := r.after("first"); got != 6*time.Second {
		t.Errorf("evicted after %s, want 6s", got)
	}
}

func TestProcessesLeftAreTheLowerLimitLessThoseThatRun(t *testing.T) {
	got, err := parseProcesses("4194304\n192730\n66.97 42.88 21.83 22/4812 636\n")
	if err != nil || got != 192730-4812 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseProcesses("4194304\n"); err == nil {
		t.Error("no error without the other limit")
	}
}

func TestPodThatFailsTwiceIsCounted(t *testing.T) {
	r := newRecord()
	r.seen("a", 1, corev1.PodFailed, "Evicted")
	r.seen("a", 2, corev1.PodFailed, "Evicted")
	r.seen("a", 3, corev1.PodRunning, "")
	r.seen("a", 4, corev1.PodFailed, "Evicted")
	if got := r.pods["a"].failures; got != 2 {
		t.Errorf("%d failures, want 2", got)
	}
}

func TestPressureIsASpanFromItsFirstBeginToItsLastEnd(t *testing.T) {
	r := newRecord()
	node := func(second int, status corev1.ConditionStatus, taints ...string) {
		n := &corev1.Node{}
		n.Status.Conditions = []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue},
			{Type: corev1.NodeDiskPressure, Status: status, Reason: "Why"},
		}

		for _, key := range taints {
			n.Spec.Taints = append(
				n.Spec.Taints,
				corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule},
			)
		}

		r.noteNode(n, at(second))
	}

	node(0, corev1.ConditionFalse)
	if r.underPressure() || len(r.node.shown) != 0 {
		t.Errorf("before: %+v", r.node)
	}

	node(2, corev1.ConditionTrue, "disk-pressure")
	node(3, corev1.ConditionTrue, "disk-pressure")
	if !r.underPressure() {
		t.Error("it is not under pressure")
	}

	node(7, corev1.ConditionFalse)
	if got := r.node.conditions[corev1.NodeDiskPressure].lasted(); got != 5*time.Second || r.underPressure() {
		t.Errorf("lasted %s, want 5s", got)
	}

	if want := []string{"DiskPressure True Why ", "DiskPressure False Why "}; !slices.Equal(
		r.node.shown,
		want,
	) {
		t.Errorf("shown %q", r.node.shown)
	}

	if !slices.Equal(r.node.taints, []string{"disk-pressure:NoSchedule"}) {
		t.Errorf("taints %q", r.node.taints)
	}
}
