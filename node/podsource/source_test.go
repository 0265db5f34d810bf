package podsource

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/queue"
)

var discard = slog.New(slog.DiscardHandler)

// looks are the pods that were to be looked at.
type looks struct {
	// mu guards pods.
	mu   sync.Mutex
	pods []types.UID
}

func (l *looks) Look(pod types.UID, _ queue.Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pods = append(l.pods, pod)
}

// take returns the looks since the last take.
func (l *looks) take() []types.UID {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.pods
	l.pods = nil
	return out
}

// testSource is a source with the API server that it follows.
type testSource struct {
	*Source
	t      *testing.T
	server *kubetest.Server
	looks  *looks
}

// source returns a source that does not run yet.
func source(t *testing.T) testSource {
	t.Helper()
	return sourceOf(t, kubetest.Start(t))
}

func sourceOf(t *testing.T, server *kubetest.Server) testSource {
	t.Helper()
	l := &looks{}
	return testSource{
		Source: New(kube.Pods(server.Client()), "node1", l, discard),
		t:      t,
		server: server,
		looks:  l,
	}
}

// start follows the API until the test ends, and waits for its first list.
func (s testSource) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	s.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-s.Synced()
}

// await waits until something is so.
func (s testSource) await(what string, is func() bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	for range retry.Every(ctx, time.Millisecond) {
		if is() {
			return
		}
	}
	s.t.Fatalf("%s: not so; the pods are %v", what, s.List())
}

// bound is a pod of the node in the API.
func bound(uid, name string) *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid), Name: name, Namespace: "n"},
		Spec:       v1.PodSpec{NodeName: "node1"},
	}
}

func TestPodsOfTheNodeAreFollowed(t *testing.T) {
	s := source(t)
	s.server.Put(bound("a", "a"))
	elsewhere := bound("b", "b")
	elsewhere.Spec.NodeName = "node2"
	s.server.Put(elsewhere)
	if s.Settled(SourceAPI) || s.Complete() {
		t.Error("settled before the list")
	}

	s.start()
	if !s.Settled(SourceAPI) || !s.Complete() {
		t.Error("not settled with the list")
	}
	if got := s.List(); len(got) != 1 || s.Get("a") == nil || s.Get("b") != nil {
		t.Errorf("pods %v", got)
	}
	if got := s.looks.take(); !slices.Equal(got, []types.UID{"a"}) {
		t.Errorf("looks at %v", got)
	}

	s.server.Remove("pods", "n", "a")
	s.await("the pod is gone", func() bool { return s.Get("a") == nil })
	s.await("it is looked at", func() bool { return slices.Contains(s.looks.take(), "a") })
}

func TestAPodOfTheSameNameIsAnotherPod(t *testing.T) {
	s := source(t)
	s.server.Put(bound("old", "p"))
	s.start()
	old := s.Get("old")
	s.server.Remove("pods", "n", "p")
	s.server.Put(bound("new", "p"))
	s.await("the new pod is known", func() bool { return s.Get("new") != nil })
	if s.Get("old") != nil {
		t.Errorf("pods %v", s.List())
	}

	late := old.DeepCopy()
	late.ResourceVersion = "999999"
	s.Saw(late)
	if s.Get("old") != nil || s.Get("new") == nil {
		t.Error("the answer to a write brought a deleted pod back")
	}
}

func TestTheAnswerToAWriteIsKeptUntilTheWatchHasIt(t *testing.T) {
	s := source(t)
	s.server.Put(bound("u", "p"))
	s.start()
	answer := s.Get("u").DeepCopy()
	answer.ResourceVersion = "999999"
	answer.Status.Phase = v1.PodRunning
	s.Saw(answer)

	// The watch is behind: it shows a version between the two.
	changed := bound("u", "p")
	changed.Labels = map[string]string{"a": "b"}
	s.server.Put(changed)
	s.server.Put(bound("other", "other"))
	s.await("the watch has come by", func() bool { return s.Get("other") != nil })
	if s.Get("u").Status.Phase != v1.PodRunning {
		t.Error("the watch took an older version over the answer of a write")
	}
}

// A mirror carries the annotations of its static pod, and anybody may write such ones to a pod of the API.
func TestPodsOfTheAPIAreNotStatic(t *testing.T) {
	s := source(t)
	forged := bound("u", "p")
	forged.Annotations = map[string]string{manifest.AnnotationSource: manifest.SourceFile}
	s.server.Put(forged)
	s.start()
	if Static(s.Get("u")) {
		t.Error("a pod of the API counts as one of a manifest")
	}
	s.server.Remove("pods", "n", "p")
	s.await("it goes with its object", func() bool { return s.Get("u") == nil })
}

func TestPodsAreListedByAge(t *testing.T) {
	s := source(t)
	for i, name := range []string{"c", "a", "b"} {
		pod := bound(name, name)
		pod.CreationTimestamp = metav1.NewTime(time.Unix(int64(100-i), 0))
		s.server.Put(pod)
	}

	s.start()
	var got []string
	for _, pod := range s.List() {
		got = append(got, pod.Name)
	}

	if !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Errorf("in the order %v", got)
	}
}
