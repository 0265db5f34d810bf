package kube_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
)

// run runs something until the test ends, and waits for its end.
func run(t *testing.T, f func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { f(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

// next returns the next value that the tested code has sent.
func next[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case x := <-from:
		return x
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}

// word describes a call of Changed.
func word(before, now *corev1.ConfigMap) string {
	switch {
	case before == nil:
		return "+" + now.Name + now.Data["k"]
	case now == nil:
		return "-" + before.Name + before.Data["k"]
	}
	return before.Name + before.Data["k"] + ">" + now.Data["k"]
}

func TestAWatchKeepsWhatTheServerHas(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(configMap("a", "1"))
	words, listed := make(chan string, 99), make(chan bool, 9)
	w := kube.NewWatch(kube.ConfigMaps(server.Client()), kube.WatchConfig[corev1.ConfigMap]{
		Slim:    func(m *corev1.ConfigMap) { m.Labels = nil },
		Index:   func(m *corev1.ConfigMap) []string { return []string{m.Data["k"]} },
		Changed: func(before, now *corev1.ConfigMap) { words <- word(before, now) },
		Listed:  func() { listed <- true },
	})
	if w.HasListed() {
		t.Error("listed before it runs")
	}

	run(t, w.Run)
	if got := next(t, words); got != "+a1" {
		t.Errorf("at the start: %s", got)
	}

	next(t, listed)
	if err := kube.AwaitListed(t.Context(), w); err != nil || !w.HasListed() {
		t.Errorf("not listed: %v", err)
	}

	server.Put(configMap("a", "2"))
	if got := next(t, words); got != "a1>2" {
		t.Errorf("after a change: %s", got)
	}
	if got := w.Get("ns/a"); got == nil || got.Data["k"] != "2" || got.Labels != nil {
		t.Errorf("got %+v", got)
	}
	if len(w.By("1")) != 0 || len(w.By("2")) != 1 || len(w.All()) != 1 {
		t.Errorf("the index has %v and %v", w.By("1"), w.By("2"))
	}

	server.Remove("configmaps", "ns", "a")
	if got := next(t, words); got != "-a2" || w.Get("ns/a") != nil {
		t.Errorf("after a deletion: %s", got)
	}
}

func TestAWatchThatEndsIsResumed(t *testing.T) {
	server := kubetest.Start(t)
	words := make(chan string, 99)
	w := kube.NewWatch(kube.ConfigMaps(server.Client()), kube.WatchConfig[corev1.ConfigMap]{
		Field:   "metadata.name=a",
		Changed: func(before, now *corev1.ConfigMap) { words <- word(before, now) },
		Retry:   retry.Backoff{First: time.Millisecond, Max: time.Millisecond},
	})

	run(t, w.Run)
	server.Put(configMap("a", "1"))
	if got := next(t, words); got != "+a1" {
		t.Error(got)
	}

	server.EndWatches()

	// not selected
	server.Put(configMap("b", "1"))
	server.Put(configMap("a", "2"))
	if got := next(t, words); got != "a1>2" {
		t.Error(got)
	}
}

func TestADeletionThatWasMissedCostsNoSecondList(t *testing.T) {
	server := kubetest.Start(t)
	for _, name := range []string{"a", "b", "c"} {
		server.Put(configMap(name, "1"))
	}
	words := make(chan string, 99)
	w := kube.NewWatch(kube.ConfigMaps(server.Client()), kube.WatchConfig[corev1.ConfigMap]{
		Changed: func(before, now *corev1.ConfigMap) { words <- word(before, now) },
		Retry:   retry.Backoff{First: time.Millisecond, Max: time.Millisecond},
	})
	run(t, w.Run)
	for range 3 {
		next(t, words)
	}

	// The server knows no more what has changed while it was down.
	server.FailOn("watch configmaps", 1, apierrors.NewResourceExpired("too old"))
	server.EndWatches()
	server.Remove("configmaps", "ns", "b")
	for word := range words {
		if word == "-b1" {
			break
		}
	}
	var lists []string
	for _, call := range server.Calls() {
		if strings.HasPrefix(call, "list configmaps") {
			lists = append(lists, call)
		}
	}
	if len(lists) > 1 || w.Get("ns/a") == nil || w.Get("ns/c") == nil {
		t.Errorf("lists %q, objects %v", lists, w.All())
	}
}

func TestAnObjectMadeAgainIsAnotherOne(t *testing.T) {
	server := kubetest.Start(t)
	words := make(chan string, 99)
	w := kube.NewWatch(kube.ConfigMaps(server.Client()), kube.WatchConfig[corev1.ConfigMap]{
		Changed: func(before, now *corev1.ConfigMap) { words <- word(before, now) },
	})
	run(t, w.Run)
	server.Put(configMap("a", "1"))
	next(t, words)
	first := w.Get("ns/a")
	server.Remove("configmaps", "ns", "a")
	server.Put(configMap("a", "2"))
	if a, b := next(t, words), next(t, words); a != "-a1" || b != "+a2" {
		t.Errorf("%s, %s", a, b)
	}

	late := first.DeepCopy()
	late.ResourceVersion = "999999"
	if w.Saw(late) || w.Get("ns/a").Data["k"] != "2" {
		t.Error("an answer about the first object replaced the second")
	}
}

func TestTheAnswerToAWriteCountsOnlyIfItIsNewer(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(configMap("a", "1"))
	w := kube.NewWatch(kube.ConfigMaps(server.Client()), kube.WatchConfig[corev1.ConfigMap]{})
	run(t, w.Run)
	next(t, w.Listed())

	known := w.Get("ns/a")
	newer, older := known.DeepCopy(), known.DeepCopy()
	newer.ResourceVersion, newer.Data["k"] = "999999", "2"
	if !w.Saw(newer) || w.Saw(older) || w.Get("ns/a").Data["k"] != "2" {
		t.Errorf("known: %v", w.Get("ns/a"))
	}

	unknown := configMap("b", "1")
	unknown.ResourceVersion = "999999"
	if w.Saw(unknown) || w.Get("ns/b") != nil {
		t.Error("an object that has gone was added")
	}
}

func TestTheErrorsOfAWatchAreReported(t *testing.T) {
	server := kubetest.Start(t)
	forbidden := apierrors.NewForbidden(corev1.Resource("configmaps"), "", nil)
	server.FailOn("list configmaps", -1, forbidden)
	server.FailOn("watch configmaps", -1, forbidden)
	failed := make(chan error, 99)
	w := kube.NewWatch(kube.ConfigMaps(server.Client()), kube.WatchConfig[corev1.ConfigMap]{
		Failed: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
		Retry: retry.Backoff{First: time.Millisecond, Max: 2 * time.Millisecond},
	})

	run(t, w.Run)
	if err := next(t, failed); !apierrors.IsForbidden(err) {
		t.Errorf("error %v", err)
	}
	if w.HasListed() {
		t.Error("listed without a list")
	}

	server.FailOn("list configmaps", 0, nil)
	server.FailOn("watch configmaps", 0, nil)
	next(t, w.Listed())
}

func TestOneObjectIsFollowed(t *testing.T) {
	server := kubetest.Start(t)
	words := make(chan string, 99)
	ended := make(chan error, 1)
	stop := errors.New("seen enough")
	see := func(m *corev1.ConfigMap) error {
		if m == nil {
			words <- "none"
			return nil
		}

		words <- m.Data["k"]
		if m.Data["k"] == "3" {
			return stop
		}

		return nil
	}

	run(t, func(ctx context.Context) {
		ended <- kube.Follow(ctx, kube.ConfigMaps(server.Client()), "ns", "a", see)
	})

	var seen []string
	for _, change := range []func(){
		func() {},
		func() { server.Put(configMap("a", "1")) },
		func() { server.Remove("configmaps", "ns", "a") },
		func() { server.Put(configMap("b", "x")); server.Put(configMap("a", "2")) },
		func() { server.EndWatches(); server.Put(configMap("a", "3")) },
	} {
		change()
		seen = append(seen, next(t, words))
	}

	if got, want := fmt.Sprint(seen), "[none 1 none 2 3]"; got != want {
		t.Errorf("seen %s, want %s", got, want)
	}
	if err := next(t, ended); !errors.Is(err, stop) {
		t.Errorf("ended with %v", err)
	}
}

func TestFollowEndsWithTheServersError(t *testing.T) {
	server := kubetest.Start(t)
	server.FailOn("watch configmaps", -1, apierrors.NewResourceExpired("too old"))
	err := kube.Follow(t.Context(), kube.ConfigMaps(server.Client()), "ns", "a",
		func(*corev1.ConfigMap) error { return nil })
	if !apierrors.IsResourceExpired(err) {
		t.Errorf("error %v", err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err = kube.Follow(ended, kube.ConfigMaps(server.Client()), "ns", "a",
		func(*corev1.ConfigMap) error { return nil })
	if err != nil {
		t.Errorf("a context that has ended: %v", err)
	}
}

func TestKeys(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	if a, b := kube.Key(configMap("m", "")), kube.Key(node); a != "ns/m" || b != "n" {
		t.Errorf("keys %q and %q", a, b)
	}
}
