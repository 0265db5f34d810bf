package event

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
)

// fakeSink stores events until it forgets them.
type fakeSink struct {
	// mu guards the rest.
	mu      sync.Mutex
	created []*corev1.Event
	patches []string
	expired bool
}

func (s *fakeSink) Create(_ context.Context, e *corev1.Event) (*corev1.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.created = append(s.created, e.DeepCopy())
	return e, nil
}

func (s *fakeSink) Patch(
	_ context.Context, _, name string, _ types.PatchType, patch []byte, _ ...string,
) (*corev1.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expired {
		return nil, apierrors.NewNotFound(corev1.Resource("events"), name)
	}
	s.patches = append(s.patches, string(patch))
	return nil, nil
}

func (s *fakeSink) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = true
}

func (s *fakeSink) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.created) + len(s.patches)
}

func testConfig() Config {
	return Config{Component: "kubelet", Node: "node1", Log: slog.New(slog.DiscardHandler)}
}

func testPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p", Namespace: "n"},
		Spec: corev1.PodSpec{
			InitContainers:      []corev1.Container{{Name: "i"}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: ephemeral("e")}},
		},
	}
}

func ephemeral(name string) corev1.EphemeralContainerCommon {
	return corev1.EphemeralContainerCommon{Name: name}
}

// start runs a recorder in a bubble of synctest.
func start(t *testing.T, sink Sink, cfg Config) *Recorder {
	r := New(sink, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	go r.Run(ctx)
	t.Cleanup(func() {
		cancel()
		synctest.Wait()
	})
	return r
}

// settle waits until everything that was recorded is sent.
func settle() {
	time.Sleep(courtesy)
	synctest.Wait()
}

func TestEventsGiveWayToWhatTheyAreAbout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r := start(t, sink, testConfig())
		for i, want := range []int{0, 1, 2} {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Pulled", strings.Repeat("x", i+1))
			synctest.Wait()
			if n := sink.sent(); n != want {
				t.Errorf("%d events were sent, want %d", n, want)
			}

			time.Sleep(courtesy)
		}

		synctest.Wait()
		if n := sink.sent(); n != 3 {
			t.Errorf("%d events were sent, want 3", n)
		}
	})
}

func TestWhatWasRecordedBeforeTheEndIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r := New(sink, testConfig())
		ctx, end := context.WithCancel(t.Context())
		for i := range 3 {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Stopped", strings.Repeat("x", i+1))
		}

		end()
		began := time.Now()
		r.Run(ctx)
		if n := sink.sent(); n != 3 || time.Since(began) > farewell {
			t.Errorf("%d events were sent after %s, want 3", n, time.Since(began))
		}
	})
}

func TestFlushReturnsWhenAllIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r := start(t, sink, testConfig())
		for i := range 3 {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Stopped", strings.Repeat("x", i+1))
		}

		r.Flush(t.Context())
		if n := sink.sent(); n != 3 {
			t.Errorf("%d events were sent, want 3", n)
		}
	})
}

func TestRepeatedEventsRaiseACount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r := start(t, sink, testConfig())
		for range 3 {
			r.Pod(testPod(), "i", corev1.EventTypeWarning, "Unhealthy", "no")
		}

		settle()
		if len(sink.created) != 1 || len(sink.patches) != 2 ||
			!strings.Contains(sink.patches[1], `"count":3`) {
			t.Fatalf("created %d, patches %v", len(sink.created), sink.patches)
		}

		e := sink.created[0]
		if e.InvolvedObject.FieldPath != "spec.initContainers{i}" || e.Source.Component != "kubelet" ||
			e.Source.Host != "node1" {
			t.Errorf("%+v", e)
		}

		sink.forget()
		r.Pod(testPod(), "i", corev1.EventTypeWarning, "Unhealthy", "no")
		settle()
		if len(sink.created) != 2 || sink.created[1].Count != 4 {
			t.Errorf("an expired event was not made again: %d", len(sink.created))
		}
	})
}

// onceSink knows an event of that name already.
type onceSink struct{ *fakeSink }

func (s onceSink) Create(ctx context.Context, e *corev1.Event) (*corev1.Event, error) {
	for _, known := range s.created {
		if known.Name == e.Name {
			return nil, apierrors.NewAlreadyExists(corev1.Resource("events"), e.Name)
		}
	}
	return s.fakeSink.Create(ctx, e)
}

func TestAnEventThatIsKeptOnceIsNotCountedWhenItIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := onceSink{&fakeSink{}}
		about := map[string]string{"starved_resource": "memory"}
		for range 2 {
			// Another recorder stands for the program after a kill.
			r := start(t, sink, testConfig())
			for range 2 {
				r.PodOnce(testPod(), corev1.EventTypeWarning, "Evicted", "low", about)
			}

			settle()
		}

		if len(sink.created) != 1 || len(sink.patches) != 0 ||
			sink.created[0].Annotations["starved_resource"] != "memory" {
			t.Fatalf("created %v, patches %v", sink.created, sink.patches)
		}

		other := testPod()
		other.UID = "another of that name"
		r := start(t, sink, testConfig())
		r.PodOnce(other, corev1.EventTypeWarning, "Evicted", "low", nil)
		settle()
		if len(sink.created) != 2 {
			t.Errorf("created %v", sink.created)
		}
	})
}

func TestARepetitionAfterALongTimeIsANewEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r := start(t, sink, testConfig())
		r.Record(Node("node1"), corev1.EventTypeNormal, "Starting", "now")
		time.Sleep(2*rememberFor + time.Second)
		r.Record(Node("node1"), corev1.EventTypeNormal, "Starting", "now")
		settle()
		if len(sink.created) != 2 || sink.created[1].Count != 1 {
			t.Errorf("created %v, patches %v", sink.created, sink.patches)
		}
	})
}

func TestAnObjectWithManyEventsIsRationedAndLongTextsAreCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		r := start(t, sink, testConfig())
		for i := range 100 {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "X", strings.Repeat("x", 2000+i))
		}

		settle()
		if n := sink.sent(); n != burst {
			t.Errorf("%d events were sent, want %d", n, burst)
		}
		if got := len(sink.created[0].Message); got != maxMessage {
			t.Errorf("message of %d bytes", got)
		}

		time.Sleep(refill)
		for range 3 {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Y", "y")
		}

		settle()
		if n := sink.sent(); n != burst+1 {
			t.Errorf("%d events after %v, want one more", n, refill)
		}
	})
}

func TestRecordingNeverBlocks(t *testing.T) {
	r := New(&fakeSink{}, testConfig())

	// nobody sends
	for i := range 2 * queueSize {
		r.Record(Node(strconv.Itoa(i)), corev1.EventTypeNormal, "X", "y")
	}
	if r.lost.Load() != queueSize {
		t.Errorf("lost %d", r.lost.Load())
	}
}

func TestEventsAreSentAtTheConfiguredPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &fakeSink{}
		cfg := testConfig()
		cfg.PerSecond, cfg.Burst = 2, 3
		r := start(t, sink, cfg)
		for i := range 10 {
			r.Pod(testPod(), "", corev1.EventTypeNormal, "Pulled", strings.Repeat("x", i+1))
		}

		for _, c := range []struct {
			after time.Duration
			want  int
		}{{courtesy, 3}, {time.Second, 5}, {time.Second, 7}} {
			// of synctest: no time passes
			time.Sleep(c.after)
			synctest.Wait()
			if sink.sent() != c.want {
				t.Errorf("%d events, want %d", sink.sent(), c.want)
			}
		}
	})
}

func TestEventsAreStoredByTheServer(t *testing.T) {
	server := kubetest.Start(t)
	r := New(kube.Events(server.Client()), testConfig())
	r.Pod(testPod(), "e", corev1.EventTypeWarning, "Failed", "it broke")
	r.Pod(testPod(), "e", corev1.EventTypeWarning, "Failed", "it broke")
	r.Record(Node("node1"), corev1.EventTypeNormal, "Starting", "now")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	for range retry.Every(ctx, time.Millisecond) {
		if len(kubetest.All[corev1.Event](server, "events")) == 2 {
			break
		}
	}

	cancel()
	running.Wait()

	all := kubetest.All[corev1.Event](server, "events")
	if len(all) != 2 {
		t.Fatalf("%d events", len(all))
	}

	about, failed := all[0], all[1]
	if about.Namespace != "default" || about.InvolvedObject.UID != "node1" {
		t.Errorf("event of the node: %+v", about)
	}

	if failed.Namespace != "n" || failed.Count != 2 ||
		failed.InvolvedObject.FieldPath != "spec.ephemeralContainers{e}" {
		t.Errorf("event of the pod: %+v", failed)
	}
}
