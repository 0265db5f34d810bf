package bench

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

func pod(name string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: corev1.PodStatus{
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
		},
	}
}

func TestPodIsReadyWhenItWasFirstSeenReady(t *testing.T) {
	l := newLives(watch.NewFake())
	start := time.Unix(100, 0)
	for i, p := range []*corev1.Pod{
		pod("a", corev1.ConditionFalse),
		pod("a", corev1.ConditionTrue),
		pod("a", corev1.ConditionTrue),
	} {
		l.note(watch.Event{Type: watch.Modified, Object: p}, start.Add(time.Duration(i)*time.Second))
	}

	if got := readyAt(l.seen["a"]); !got.Equal(start.Add(time.Second)) {
		t.Errorf("ready at %v, want the second event", got)
	}
	if got := goneAt(l.seen["a"]); !got.IsZero() {
		t.Errorf("gone at %v", got)
	}
}

func TestLatestOfManyIsThatOfTheLastPod(t *testing.T) {
	l := newLives(watch.NewFake())
	for i, name := range []string{"b", "c", "a"} {
		e := watch.Event{Type: watch.Deleted, Object: pod(name, corev1.ConditionTrue)}
		l.note(e, time.Unix(int64(i), 0))
	}

	if at, missing := l.latest([]string{"a", "b"}, goneAt); missing != 0 || at.Unix() != 2 {
		t.Errorf("gone at %v, %d missing", at, missing)
	}
	if _, missing := l.latest([]string{"a", "d"}, goneAt); missing != 1 {
		t.Errorf("%d missing, want 1", missing)
	}
}

func TestWaitEndsWithTheLastPodOrTheWatch(t *testing.T) {
	w := watch.NewFake()
	l := newLives(w)
	go func() {
		w.Modify(pod("a", corev1.ConditionTrue))
		w.Modify(pod("b", corev1.ConditionTrue))
	}()

	if _, err := l.await(t.Context(), []string{"a", "b"}, readyAt); err != nil {
		t.Error(err)
	}

	w.Stop()
	_, err := l.await(t.Context(), []string{"a", "b", "c"}, goneAt)
	if err == nil || !strings.Contains(err.Error(), "3 of 3 still missing") {
		t.Errorf("after the end of the watch: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = newLives(watch.NewFake()).await(ctx, []string{"a"}, readyAt)
	if err == nil || !strings.Contains(err.Error(), "1 of 1 still missing") {
		t.Errorf("when the caller gives up: %v", err)
	}
}

func TestMemoryAndProcessorTimeAreThoseOfTheProcesses(t *testing.T) {
	self := []int{os.Getpid()}
	one := MemoryOf(self)
	if one.Processes != 1 || one.RSS < 1000 || one.PSS > one.RSS {
		t.Errorf("memory of this process: %+v", one)
	}

	both := one.Plus(MemoryOf(self))
	if both.Processes != 2 || both.RSS <= one.RSS {
		t.Errorf("twice this process: %+v, once: %+v", both, one)
	}

	if got := MemoryOf([]int{1 << 30}); got.RSS != 0 {
		t.Errorf("of a process that does not exist: %+v", got)
	}
	if got := CPUOf([]int{1 << 30}); got != 0 {
		t.Errorf("processor time of a process that does not exist: %d", got)
	}
}

func TestMedianIsOneOfTheMeasurements(t *testing.T) {
	if got := Median([]time.Duration{5, 1, 3}); got != 3 {
		t.Errorf("median %v", got)
	}
	if got := Median(nil); got != 0 {
		t.Errorf("median of none: %v", got)
	}
}
