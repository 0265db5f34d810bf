package kube_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/faultproxy"
	"github.com/trivet-node/trivet/internal/kube/history"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
)

// histories follow the changes that are reported, and note what can never be: that an object which is there
// has gone, or that one which has gone is back.
type histories struct {
	// mu guards the rest.
	mu    sync.Mutex
	kept  func(name string) bool
	gone  map[types.UID]bool
	wrong []string
}

func newHistories(kept func(string) bool) *histories {
	return &histories{kept: kept, gone: map[types.UID]bool{}}
}

func (h *histories) changed(before, now *corev1.ConfigMap) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now != nil && h.gone[now.UID] {
		h.wrong = append(h.wrong, fmt.Sprintf("%s, UID %s, is back", now.Name, now.UID))
	}
	if before != nil && (now == nil || now.UID != before.UID) {
		h.gone[before.UID] = true
		if h.kept(before.Name) {
			h.wrong = append(h.wrong, before.Name+" has gone")
		}
	}
}

func (h *histories) check(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, w := range h.wrong {
		t.Error(w)
	}
}

// rounds is how often objects are changed in a test.
const rounds = 150

// change changes, deletes and makes again objects of a server, as others of the cluster would.
func change(t *testing.T, server *kubetest.Server, seed uint64, kept func(string) bool) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 0))
	for i := range rounds {
		name := fmt.Sprint("m", dice.IntN(12))
		if !kept(name) && dice.IntN(3) == 0 {
			server.Remove("configmaps", "ns", name)
		}
		if kept(name) || dice.IntN(4) > 0 {
			server.Put(configMap(name, fmt.Sprint(i)))
		}

		// The watch is to see some of it as it happens.
		_ = retry.Sleep(t.Context(), time.Duration(dice.IntN(6))*time.Millisecond)
	}
}

// state is what there is, by name: UID and version of each.
func state(all []*corev1.ConfigMap) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		out[m.Name] = fmt.Sprintf("%s %s %s", m.UID, m.ResourceVersion, m.Data["k"])
	}
	return out
}

// converge waits until two states are the same.
func converge(t *testing.T, seed uint64, got, want func() map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	for range retry.Every(ctx, 2*time.Millisecond) {
		if cmp.Equal(want(), got()) {
			return
		}
	}
	t.Errorf("seed %d: it does not end where the server is (-want +got):\n%s", seed, cmp.Diff(want(), got()))
}

func TestAWatchThroughABadProxyEndsWhereTheServerIs(t *testing.T) {
	faultproxy.Seeds(t, 12, func(t *testing.T, seed uint64) {
		server := kubetest.Start(t)
		kept := func(name string) bool { return name < "m5" && name != "m10" && name != "m11" }
		for i := range 10 {
			server.Put(configMap(fmt.Sprint("m", i), "first"))
		}

		proxy, cfg := faultproxy.Start(t, server.URL(), seed)
		client, err := kube.New(cfg)
		if err != nil {
			t.Fatal(err)
		}

		seen := newHistories(kept)
		w := kube.NewWatch(kube.ConfigMaps(client), kube.WatchConfig[corev1.ConfigMap]{
			Changed: seen.changed,
			Failed:  func(error) {},
		})
		run(t, w.Run)
		next(t, w.Listed())

		faults, lasting := faultproxy.Of(seed, 20*time.Millisecond)
		proxy.Set(faults)
		change(t, server, seed, kept)

		// Some proxies stay bad.
		if !lasting {
			proxy.Set(faultproxy.Faults{})
		}
		converge(t, seed,
			func() map[string]string { return state(w.All()) },
			func() map[string]string { return state(kubetest.All[corev1.ConfigMap](server, "configmaps")) })
		seen.check(t)
		t.Log(proxy.Tally())
	})
}

func TestAnObjectFollowedThroughABadProxyEndsAsItIs(t *testing.T) {
	faultproxy.Seeds(t, 12, func(t *testing.T, seed uint64) {
		server := kubetest.Start(t)
		proxy, cfg := faultproxy.Start(t, server.URL(), seed)
		client, err := kube.New(cfg)
		if err != nil {
			t.Fatal(err)
		}

		var mu sync.Mutex
		var last *corev1.ConfigMap
		newest := "0"
		see := func(m *corev1.ConfigMap) error {
			mu.Lock()
			defer mu.Unlock()
			last = m
			if m != nil && history.IsEarlier(m.ResourceVersion, newest) {
				t.Errorf("version %s comes after %s", m.ResourceVersion, newest)
			}
			if m != nil {
				newest = m.ResourceVersion
			}
			return nil
		}
		run(t, func(ctx context.Context) {
			follower := kube.NewFollower(kube.ConfigMaps(client), "ns", "m1", see)
			for range retry.Every(ctx, 5*time.Millisecond) {
				_ = follower.Run(ctx)
			}
		})

		faults, lasting := faultproxy.Of(seed, 20*time.Millisecond)
		proxy.Set(faults)
		change(t, server, seed, func(name string) bool { return name == "m2" })
		if !lasting {
			proxy.Set(faultproxy.Faults{})
		}

		of := func(m *corev1.ConfigMap) map[string]string {
			if m == nil {
				return map[string]string{}
			}
			return state([]*corev1.ConfigMap{m})
		}
		converge(t, seed, func() map[string]string {
			mu.Lock()
			defer mu.Unlock()
			return of(last)
		}, func() map[string]string {
			return of(kubetest.Get[corev1.ConfigMap](server, "configmaps", "ns", "m1"))
		})
	})
}
