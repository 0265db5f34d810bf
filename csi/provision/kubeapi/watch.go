package kubeapi

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Watch keeps the objects of one kind as the server last told of them. What it returns is shared: do not change it.
type Watch[T any] struct {
	store      cache.Store
	controller cache.Controller
}

// Hints are called with the key ("namespace/name" or "name") of an object that came or changed, or went. They must not block.
type Hints struct {
	Changed, Gone func(key string)
}

// Claims watches all claims. slim takes away what need not be kept of one.
func (c *Client) Claims(h Hints, slim func(*corev1.PersistentVolumeClaim)) *Watch[corev1.PersistentVolumeClaim] {
	return newWatch(c.core, claims, &corev1.PersistentVolumeClaim{}, h, slim)
}

// Volumes watches all PersistentVolumes. slim takes away what need not be kept of one.
func (c *Client) Volumes(h Hints, slim func(*corev1.PersistentVolume)) *Watch[corev1.PersistentVolume] {
	return newWatch(c.core, volumes, &corev1.PersistentVolume{}, h, slim)
}

// Classes watches all StorageClasses.
func (c *Client) Classes(h Hints) *Watch[storagev1.StorageClass] {
	return newWatch(c.storage, "storageclasses", &storagev1.StorageClass{}, h, func(s *storagev1.StorageClass) { s.ManagedFields = nil })
}

// CSINodes watches all CSINodes.
func (c *Client) CSINodes(h Hints) *Watch[storagev1.CSINode] {
	return newWatch(c.storage, "csinodes", &storagev1.CSINode{}, h, func(n *storagev1.CSINode) { n.ManagedFields, n.Annotations = nil, nil })
}

func newWatch[T any, P interface {
	*T
	runtime.Object
}](client *rest.RESTClient, resource string, kind P, h Hints, slim func(*T)) *Watch[T] {
	hint := func(call func(string)) func(any) {
		return func(obj any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil && call != nil {
				call(key)
			}
		}
	}
	changed := hint(h.Changed)
	w := &Watch[T]{}
	w.store, w.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, resource, metav1.NamespaceAll, fields.Everything()),
		ObjectType:    kind,
		Handler:       cache.ResourceEventHandlerFuncs{AddFunc: changed, UpdateFunc: func(_, obj any) { changed(obj) }, DeleteFunc: hint(h.Gone)},
		Transform: func(obj any) (any, error) {
			if o, ok := obj.(*T); ok {
				slim(o)
			}
			return obj, nil
		},
	})
	return w
}

// Run watches until ctx ends.
func (w *Watch[T]) Run(ctx context.Context) { w.controller.RunWithContext(ctx) }

// Filled tells whether all objects that there were at the start are there.
func (w *Watch[T]) Filled() bool { return w.controller.HasSynced() }

// Get returns an object by key, nil when there is none.
func (w *Watch[T]) Get(key string) *T {
	obj, _, err := w.store.GetByKey(key)
	if err != nil {
		return nil
	}
	found, _ := obj.(*T)
	return found
}

// List returns all objects in no order.
func (w *Watch[T]) List() []*T {
	var all []*T
	for _, obj := range w.store.List() {
		if o, ok := obj.(*T); ok {
			all = append(all, o)
		}
	}
	return all
}
