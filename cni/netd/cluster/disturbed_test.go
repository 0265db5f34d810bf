package cluster_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/cni/netd/cluster"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/faultproxy"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
)

// scale adds nodes to a cluster, removes them, and makes them again with other networks.
func scale(t *testing.T, api *kubetest.Server, seed uint64) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 4))
	for i := range 120 {
		name := fmt.Sprint("n", dice.IntN(8))
		if dice.IntN(3) == 0 {
			api.Remove("nodes", "", name)
		}
		if dice.IntN(4) > 0 {
			api.Put(node(name, fmt.Sprintf("10.244.%d.0/24", i), fmt.Sprint("10.99.1.", i)))
		}
		api.Put(node("kept", "10.245.0.0/24", fmt.Sprint("10.99.2.", i)))

		// Some of it is to be seen as it happens.
		_ = retry.Sleep(t.Context(), time.Duration(dice.IntN(6))*time.Millisecond)
	}
}

// routes are what routes are made of, as a reader finds it who looks after each change, and no other time.
type routes struct {
	*cluster.Cluster

	// mu guards the rest.
	mu    sync.Mutex
	last  map[string]string
	wrong int
}

// look reads the Nodes.
func (r *routes) look() {
	all, _ := r.Nodes()
	now := map[string]string{}
	for _, n := range all {
		now[n.Name] = fmt.Sprint(n.PodCIDRs, n.Addresses)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last["kept"] != "" && now["kept"] == "" {
		r.wrong++
	}
	r.last = now
}

func (r *routes) get() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// follow follows the Nodes until the test ends.
func follow(t *testing.T, cfg kube.Config) *routes {
	t.Helper()
	r := &routes{}
	changes := make(chan struct{}, 1)
	changed := func() {
		select {
		case changes <- struct{}{}:
		default:
		}
	}

	var err error
	if r.Cluster, err = cluster.New(cfg, changed, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	running.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-changes:
				r.look()
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})

	return r
}

// wanted is what the API says.
func wanted(api *kubetest.Server) map[string]string {
	out := map[string]string{}
	for _, n := range kubetest.All[corev1.Node](api, "nodes") {
		out[n.Name] = fmt.Sprintf("%v [%s]", n.Spec.PodCIDRs, n.Status.Addresses[0].Address)
	}
	return out
}

func TestNodesWatchedThroughABadProxyEndAsTheAPIHasThem(t *testing.T) {
	faultproxy.Seeds(t, 8, func(t *testing.T, seed uint64) {
		api := kubetest.Start(t)
		api.Put(node("kept", "10.245.0.0/24", "10.99.2.1"))
		proxy, cfg := faultproxy.Start(t, api.URL(), seed)

		r := follow(t, cfg)
		limit, stop := context.WithTimeout(t.Context(), 60*time.Second)
		defer stop()
		ends := func(what string) {
			for range retry.Every(limit, 2*time.Millisecond) {
				if cmp.Equal(wanted(api), r.get()) {
					return
				}
			}
			t.Fatalf("%s they are not the API's (-want +got):\n%s", what, cmp.Diff(wanted(api), r.get()))
		}

		ends("at the start")
		faults, lasting := faultproxy.Of(seed, 20*time.Millisecond)
		proxy.Set(faults)
		scale(t, api, seed)

		// Some proxies stay bad.
		if !lasting {
			proxy.Set(faultproxy.Faults{})
		}
		ends("in the end")
		if r.wrong > 0 {
			t.Errorf("the node that stays was gone %d times", r.wrong)
		}
	})
}
