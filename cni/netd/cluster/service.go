package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// services is the cache of a list-watch of ServiceCIDRs. They are known since Kubernetes 1.33; an older
// cluster, or a role without the right to read them, has none.
type services struct {
	informer cache.SharedInformer
	log      *slog.Logger
	once     sync.Once
}

func newServices(client *rest.RESTClient, changed func(), log *slog.Logger) *services {
	s := &services{log: log, informer: cache.NewSharedInformer(serviceListWatch(client),
		&networkingv1.ServiceCIDR{}, 0)}
	// Both fail only for an informer that runs.
	_ = s.informer.SetWatchErrorHandlerWithContext(s.interrupted)
	_, _ = s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(any, any) { changed() },
		DeleteFunc: func(any) { changed() },
	})
	return s
}

func serviceListWatch(client *rest.RESTClient) *cache.ListWatch {
	parameters := metav1.ParameterCodec
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &networkingv1.ServiceCIDRList{}
			err := client.Get().Resource("servicecidrs").VersionedParams(&o, parameters).Do(ctx).Into(list)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return client.Get().Resource("servicecidrs").VersionedParams(&o, parameters).Watch(ctx)
		},
	}
}

func (s *services) run(ctx context.Context) { s.informer.RunWithContext(ctx) }

// interrupted says once that the networks of Services are not known; the reflector goes on asking.
func (s *services) interrupted(ctx context.Context, r *cache.Reflector, err error) {
	if s.informer.HasSynced() {
		cache.DefaultWatchErrorHandler(ctx, r, err)
		return
	}
	s.once.Do(func() {
		s.log.Warn("networks of Services are not known: a Node may claim their addresses for its pods", "err",
			err)
	})
}

// networks lists what is known.
func (s *services) networks() (all []netip.Prefix) {
	for _, object := range s.informer.GetStore().List() {
		c, ok := object.(*networkingv1.ServiceCIDR)
		if !ok {
			continue
		}

		for _, text := range c.Spec.CIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				all = append(all, p.Masked())
			}
		}
	}

	return all
}
