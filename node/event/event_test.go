package event

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type sink struct {
	mu      sync.Mutex // guards the rest
	created []*v1.Event
	patches []string
	lost    bool // the stored events have expired
}

func (s *sink) Create(_ context.Context, e *v1.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = append(s.created, e.DeepCopy())
	return nil
}

func (s *sink) Patch(_ context.Context, _, name string, patch []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "events"}, name)
	}
	s.patches = append(s.patches, string(patch))
	return nil
}

func testPod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p", Namespace: "n"},
		Spec:       v1.PodSpec{InitContainers: []v1.Container{{Name: "i"}}},
	}
}

func TestRepeatedEventsRaiseACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r := New(s, "node1", slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		for range 3 {
			r.Pod(testPod(), "i", v1.EventTypeWarning, "Unhealthy", "no")
		}

		synctest.Wait()
		if len(s.created) != 1 || len(s.patches) != 2 || !strings.Contains(s.patches[1], `"count":3`) {
			t.Fatalf("created %d, patches %v", len(s.created), s.patches)
		}

		if e := s.created[0]; e.InvolvedObject.FieldPath != "spec.initContainers{i}" ||
			e.Source.Component != "kubelet" || e.Source.Host != "node1" {
			t.Errorf("%+v", e)
		}

		s.mu.Lock()
		s.lost = true
		s.mu.Unlock()
		r.Pod(testPod(), "i", v1.EventTypeWarning, "Unhealthy", "no")
		synctest.Wait()
		if len(s.created) != 2 || s.created[1].Count != 4 {
			t.Errorf("an expired event was not made again: %d", len(s.created))
		}

		cancel()
		synctest.Wait()
	})
}

func TestANoisyPodIsRationedAndLongTextsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r := New(s, "node1", slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		for i := range 100 {
			r.Pod(testPod(), "", v1.EventTypeNormal, "X", strings.Repeat("x", 2000+i))
		}

		synctest.Wait()
		if n := len(s.created) + len(s.patches); n != burst {
			t.Errorf("%d events were sent, want %d", n, burst)
		}
		if got := len(s.created[0].Message); got != maxText {
			t.Errorf("message of %d bytes", got)
		}

		cancel()
		synctest.Wait()
	})
}

func TestRecordingNeverBlocks(t *testing.T) {
	r := New(&sink{}, "node1", slog.New(slog.DiscardHandler))

	// nobody sends
	for range 2 * queueSize {
		r.Node(v1.EventTypeNormal, "X", "y")
	}
	if r.dropped.Load() != queueSize {
		t.Errorf("dropped %d", r.dropped.Load())
	}
}

func TestEventsAreSentAtTheConfiguredPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r := New(s, "node1", slog.New(slog.DiscardHandler))
		r.Limit(2, 3)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		go r.Run(ctx)
		for i := range 10 {
			r.Pod(testPod(), "", v1.EventTypeNormal, "Pulled", strings.Repeat("x", i+1))
		}

		for _, c := range []struct {
			after time.Duration
			want  int
		}{{0, 3}, {time.Second, 5}, {time.Second, 7}} {
			// of synctest: no time passes
			time.Sleep(c.after)
			synctest.Wait()
			if len(s.created) != c.want {
				t.Errorf("%d events, want %d", len(s.created), c.want)
			}
		}
	})
}
