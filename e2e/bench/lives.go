package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// lives follows the pods of a namespace by one watch and notes when something of them is first seen.
type lives struct {
	watch watch.Interface
	seen  map[string]moments
}

// moments of a pod, zero until they are seen.
type moments struct{ scheduled, ready, gone time.Time }

func readyAt(m moments) time.Time { return m.ready }
func goneAt(m moments) time.Time  { return m.gone }

func newLives(w watch.Interface) *lives { return &lives{watch: w, seen: map[string]moments{}} }

func (l *lives) stop() { l.watch.Stop() }

// await reads the watch until the moment is known of all names, and returns the latest.
func (l *lives) await(ctx context.Context, names []string, at func(moments) time.Time) (time.Time, error) {
	for {
		latest, missing := l.latest(names, at)
		if missing == 0 {
			return latest, nil
		}

		select {
		case <-ctx.Done():
			return latest, fmt.Errorf("%d of %d still missing: %w", missing, len(names), context.Cause(ctx))
		case e, open := <-l.watch.ResultChan():
			if !open {
				return latest, fmt.Errorf("%d of %d still missing: the watch ended", missing, len(names))
			}

			l.note(e, time.Now())
		}
	}
}

// latest is the latest of the moments, and of how many names it is not known yet.
func (l *lives) latest(names []string, at func(moments) time.Time) (latest time.Time, missing int) {
	for _, n := range names {
		t := at(l.seen[n])
		if t.IsZero() {
			missing++
		}
		if t.After(latest) {
			latest = t
		}
	}
	return latest, missing
}

func (l *lives) note(e watch.Event, now time.Time) {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		return
	}

	m := l.seen[pod.Name]
	if m.scheduled.IsZero() && pod.Spec.NodeName != "" {
		m.scheduled = now
	}

	switch {
	case e.Type == watch.Deleted:
		m.gone = now
	case m.ready.IsZero() && IsReady(pod):
		m.ready = now
	}

	l.seen[pod.Name] = m
}

// IsReady reports whether a pod has the condition Ready.
func IsReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
