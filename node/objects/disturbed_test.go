package objects_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/faultproxy"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/objects"
)

// referring is a pod that names ConfigMaps and Secrets.
func referring(uid types.UID, named ...string) *v1.Pod {
	p := pod(uid)
	for _, name := range named {
		p.Spec.Volumes = append(p.Spec.Volumes,
			v1.Volume{VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{
				LocalObjectReference: v1.LocalObjectReference{Name: name},
			}}},
			v1.Volume{VolumeSource: v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: name}}})
	}
	return p
}

// changing are the names of objects that change.
var changing = []string{"m", "n", "o", "p"}

// write changes, deletes and makes again ConfigMaps, Secrets and Services.
func write(t *testing.T, api *kubetest.Server, seed uint64) {
	t.Helper()
	dice := rand.New(rand.NewPCG(seed, 2))
	for i := range 120 {
		name := changing[dice.IntN(len(changing))]
		if dice.IntN(5) == 0 {
			api.Remove("configmaps", "ns", name)
			api.Remove("secrets", "ns", name)
			api.Remove("services", "ns", name)
		}

		value := fmt.Sprint(i)
		api.Put(&v1.ConfigMap{ObjectMeta: named(name), Data: map[string]string{"k": value}})
		api.Put(&v1.Secret{ObjectMeta: named(name), Data: map[string][]byte{"k": []byte(value)}})
		api.Put(&v1.Service{
			ObjectMeta: named(name),
			Spec:       v1.ServiceSpec{ClusterIP: fmt.Sprint("10.0.0.", i)},
		})

		// Some of it is to be seen as it happens.
		_ = retry.Sleep(t.Context(), time.Duration(dice.IntN(6))*time.Millisecond)
	}
}

// known is what the cache says, in words.
func (n *node) known(ctx context.Context) map[string]string {
	out := map[string]string{}
	for _, name := range changing {
		m, err := n.ConfigMap(ctx, "ns", name)
		if err == nil {
			out["configmap "+name] = m.Data["k"]
		} else if !apierrors.IsNotFound(err) {
			out["configmap "+name] = err.Error()
		}

		s, err := n.Secret(ctx, "ns", name)
		if err == nil {
			out["secret "+name] = string(s.Data["k"])
		} else if !apierrors.IsNotFound(err) {
			out["secret "+name] = err.Error()
		}
	}

	services, err := n.Services(ctx, "ns", false)
	if err != nil {
		out["services"] = err.Error()
	}
	for _, s := range services {
		out["service "+s.Name] = s.Spec.ClusterIP
	}
	return out
}

// stored is what the API has, in the same words.
func (n *node) stored() map[string]string {
	out := map[string]string{}
	for _, m := range kubetest.All[v1.ConfigMap](n.api, "configmaps") {
		out["configmap "+m.Name] = m.Data["k"]
	}
	for _, s := range kubetest.All[v1.Secret](n.api, "secrets") {
		out["secret "+s.Name] = string(s.Data["k"])
	}
	for _, s := range kubetest.All[v1.Service](n.api, "services") {
		out["service "+s.Name] = s.Spec.ClusterIP
	}
	return out
}

func TestObjectsFollowedThroughABadProxyEndAsTheAPIHasThem(t *testing.T) {
	faultproxy.Seeds(t, 12, func(t *testing.T, seed uint64) {
		api := kubetest.Start(t)
		proxy, cfg := faultproxy.Start(t, api.URL(), seed)
		client, err := kube.New(cfg)
		if err != nil {
			t.Fatal(err)
		}

		n := &node{api: api}
		n.Cache = objects.New(client, func(types.UID) {}, slog.New(slog.DiscardHandler))
		n.keep(t)
		n.Register(referring("u1", changing...))
		faults, lasting := faultproxy.Of(seed, 20*time.Millisecond)
		proxy.Set(faults)
		write(t, api, seed)

		// Some proxies stay bad.
		if !lasting {
			proxy.Set(faultproxy.Faults{})
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range retry.Every(ctx, 2*time.Millisecond) {
			if cmp.Equal(n.stored(), n.known(ctx)) {
				return
			}
		}

		diff := cmp.Diff(n.stored(), n.known(t.Context()))
		t.Errorf("they do not end as the API has them (-want +got):\n%s", diff)
	})
}
