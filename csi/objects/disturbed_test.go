package objects

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/faultproxy"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
)

// told is what a controller knows of volumes and claims, from what it has been told.
type told struct {
	// mu guards the rest.
	mu    sync.Mutex
	known map[string]string
	wrong []string
}

// of returns a listener for one kind. An object whose name begins with "kept" is never deleted.
func (o *told) of(kind string, before, now metav1.Object) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now == nil {
		delete(o.known, kind+" "+before.GetName())
		if before.GetName() >= "kept" {
			o.wrong = append(o.wrong, kind+" "+before.GetName()+" has gone")
		}
		return
	}
	o.known[kind+" "+now.GetName()] = fmt.Sprint(now.GetUID(), " ", now.GetResourceVersion())
}

func (o *told) state() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.known)
}

// listen returns a controller that listens to changes of volumes and claims.
func listen(w *Watched) *told {
	o := &told{known: map[string]string{}}
	w.Volumes.OnChange(func(before, now *corev1.PersistentVolume) {
		if now == nil {
			o.of("volume", before, nil)
			return
		}
		o.of("volume", nil, now)
	})
	w.Claims.OnChange(func(before, now *corev1.PersistentVolumeClaim) {
		if now == nil {
			o.of("claim", before, nil)
			return
		}
		o.of("claim", nil, now)
	})
	return o
}

// claim stores a claim and its volume.
func claim(server *kubetest.Server, name string, i int) {
	label := map[string]string{"change": fmt.Sprint(i)}
	server.Put(&corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, Labels: label},
	})
	server.Put(volume(func(pv *corev1.PersistentVolume) {
		pv.Name, pv.UID, pv.Labels, pv.Finalizers = name, "", label, nil
		pv.Spec.CSI.VolumeHandle = "handle-" + name
	}))
}

// provision makes, changes and deletes claims and volumes.
func provision(t *testing.T, server *kubetest.Server, seed uint64) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 3))
	for i := range 120 {
		name := fmt.Sprint("c", dice.IntN(6))
		if dice.IntN(3) == 0 {
			server.Remove("persistentvolumeclaims", "ns", name)
			server.Remove("persistentvolumes", "", name)
		}
		if dice.IntN(3) > 0 {
			claim(server, name, i)
		}
		claim(server, fmt.Sprint("kept", dice.IntN(4)), i)

		// Some of it is to be seen as it happens.
		_ = retry.Sleep(t.Context(), time.Duration(dice.IntN(6))*time.Millisecond)
	}
}

// stored is what the API has, in the words of told.
func stored(server *kubetest.Server) map[string]string {
	out := map[string]string{}
	add := func(kind, name string, uid types.UID, version string) {
		out[kind+" "+name] = fmt.Sprint(uid, " ", version)
	}
	for _, v := range kubetest.All[corev1.PersistentVolume](server, "persistentvolumes") {
		add("volume", v.Name, v.UID, v.ResourceVersion)
	}
	for _, c := range kubetest.All[corev1.PersistentVolumeClaim](server, "persistentvolumeclaims") {
		add("claim", c.Name, c.UID, c.ResourceVersion)
	}
	return out
}

func TestControllersBehindABadProxyAreToldWhatTheAPIHasInTheEnd(t *testing.T) {
	faultproxy.Seeds(t, 8, func(t *testing.T, seed uint64) {
		server := kubetest.Start(t)
		for i := range 4 {
			claim(server, fmt.Sprint("kept", i), 0)
		}

		proxy, cfg := faultproxy.Start(t, server.URL(), seed)
		client, err := kube.New(cfg)
		if err != nil {
			t.Fatal(err)
		}

		w := New(client, here)
		seen := listen(w)
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		t.Cleanup(func() {
			cancel()
			running.Wait()
		})

		if err := w.AwaitListed(ctx); err != nil {
			t.Fatal(err)
		}
		faults, lasting := faultproxy.Of(seed, 20*time.Millisecond)
		proxy.Set(faults)
		provision(t, server, seed)

		// Some proxies stay bad.
		if !lasting {
			proxy.Set(faultproxy.Faults{})
		}

		limit, stop := context.WithTimeout(ctx, 40*time.Second)
		defer stop()
		for range retry.Every(limit, 2*time.Millisecond) {
			if cmp.Equal(stored(server), seen.state()) {
				break
			}
		}
		if diff := cmp.Diff(stored(server), seen.state()); diff != "" {
			t.Errorf("they end elsewhere (-want +got):\n%s", diff)
		}

		seen.check(t, w)
	})
}

// check checks that nothing that stays has gone, and that volumes are found by their handles.
func (o *told) check(t *testing.T, w *Watched) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, what := range o.wrong {
		t.Error(what)
	}

	for name := range o.known {
		handle, isVolume := strings.CutPrefix(name, "volume ")
		if isVolume && len(w.Volumes.By("handle-"+handle)) != 1 {
			t.Errorf("%s is not found by its handle", name)
		}
	}
}
