package podsource

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/faultproxy"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/queue"
)

// eager looks at each pod at once, as the workers do, and notes what they must never see: that a pod has gone
// which nobody has deleted, or that one which has gone is back.
type eager struct {
	source *Source

	// mu guards the rest.
	mu    sync.Mutex
	kept  map[types.UID]bool
	seen  map[types.UID]bool
	gone  map[types.UID]bool
	wrong []string
}

func (e *eager) Look(uid types.UID, _ queue.Reason) {
	there := e.source.Get(uid) != nil

	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case there && e.gone[uid]:
		e.wrong = append(e.wrong, fmt.Sprintf("pod %s is back", uid))
	case there:
		e.seen[uid] = true
	case e.seen[uid]:
		e.gone[uid] = true
	}
	if e.gone[uid] && e.kept[uid] {
		e.wrong = append(e.wrong, fmt.Sprintf("pod %s has gone", uid))
	}
}

func (e *eager) check(t *testing.T) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, w := range e.wrong {
		t.Error(w)
	}
}

// operate does with pods what users do: it makes, changes, ends and deletes them, and makes them again.
func operate(t *testing.T, server *kubetest.Server, seed uint64, kept []*v1.Pod) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 1))
	for i := range 150 {
		name := fmt.Sprint("p", dice.IntN(8))
		pod := kubetest.Get[v1.Pod](server, "pods", "n", name)
		change := dice.IntN(5)
		switch {
		case pod == nil:
			server.Put(bound(fmt.Sprintf("uid-%s-%d", name, i), name))
		case change == 0:
			server.Remove("pods", "n", name)
		case change == 1:
			server.Remove("pods", "n", name)
			server.Put(bound(fmt.Sprintf("uid-%s-%d", name, i), name))
		case change == 2:
			pod.DeletionTimestamp = new(metav1.Now())
			server.Put(pod)
		default:
			pod.Labels = map[string]string{"change": fmt.Sprint(i)}
			server.Put(pod)
		}

		lasting := kept[dice.IntN(len(kept))].DeepCopy()
		lasting.Labels = map[string]string{"change": fmt.Sprint(i)}
		server.Put(lasting)

		// Some of it is to be seen as it happens.
		_ = retry.Sleep(t.Context(), time.Duration(dice.IntN(6))*time.Millisecond)
	}
}

// podsOf are pods by name, with what says which versions they are.
func podsOf(all []*v1.Pod) map[string]string {
	out := map[string]string{}
	for _, p := range all {
		out[p.Name] = fmt.Sprint(p.UID, " ", p.ResourceVersion, " ", p.Labels, p.DeletionTimestamp != nil)
	}
	return out
}

func TestPodsFollowedThroughABadProxyEndAsTheAPIHasThem(t *testing.T) {
	faultproxy.Seeds(t, 12, func(t *testing.T, seed uint64) {
		server := kubetest.Start(t)
		watcher := &eager{kept: map[types.UID]bool{}, seen: map[types.UID]bool{}, gone: map[types.UID]bool{}}
		var kept []*v1.Pod
		for i := range 6 {
			pod := bound(fmt.Sprint("kept-", i), fmt.Sprint("kept-", i))
			watcher.kept[pod.UID] = true
			kept = append(kept, pod)
			server.Put(pod)
		}

		proxy, cfg := faultproxy.Start(t, server.URL(), seed)
		client, err := kube.New(cfg)
		if err != nil {
			t.Fatal(err)
		}

		s := testSource{t: t, server: server, Source: New(kube.Pods(client), "node1", watcher, discard)}
		watcher.source = s.Source
		s.start()
		faults, lasting := faultproxy.Of(seed, 20*time.Millisecond)
		proxy.Set(faults)
		operate(t, server, seed, kept)

		// Some proxies stay bad.
		if !lasting {
			proxy.Set(faultproxy.Faults{})
		}
		s.await("the pods are those of the API", func() bool {
			return cmp.Equal(podsOf(kubetest.All[v1.Pod](server, "pods")), podsOf(s.List()))
		})
		watcher.check(t)
	})
}

func TestPodThatTheAPIHasAnsweredToBeGoneIsListedAgain(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(bound("a", "a"))
	proxy, cfg := faultproxy.Start(t, server.URL(), 1)
	cfg.Limits = kube.Limits{}
	client, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}

	s := testSource{t: t, server: server, Source: New(kube.Pods(client), "node1", &looks{}, discard)}
	s.start()
	proxy.Set(faultproxy.Faults{Lose: 1})
	server.Remove("pods", "n", "a")
	s.await("the event is lost", func() bool { return strings.Contains(proxy.Tally().String(), "lose") })
	proxy.Set(faultproxy.Faults{})
	if s.Get("a") == nil {
		t.Fatal("it is known without the event")
	}

	s.Gone("a")
	s.await("the pod has gone", func() bool { return s.Get("a") == nil })
}
