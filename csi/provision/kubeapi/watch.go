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

// Watch keeps the objects of one kind as the server last told of them. What it returns is shared: do not
// change it.
type Watch[T any] struct {
	store      cache.Indexer
	controller cache.Controller
}

// Hints are called with the key ("namespace/name" or "name") of an object that came or changed, or went. They
// must not block.
type Hints struct {
	Changed, Gone func(key string)
}

// Claims watches all claims. slim takes away what need not be kept of one.
func (c *Client) Claims(
	h Hints,
	slim func(*corev1.PersistentVolumeClaim),
) *Watch[corev1.PersistentVolumeClaim] {
	return newWatch(c.core, claims, all, &corev1.PersistentVolumeClaim{}, h, slim, nil)
}

// Volumes watches all PersistentVolumes. slim takes away what need not be kept of one. What is left of one is
// found by its CSI volume handle, too (By).
func (c *Client) Volumes(h Hints, slim func(*corev1.PersistentVolume)) *Watch[corev1.PersistentVolume] {
	return newWatch(
		c.core,
		volumes,
		all,
		&corev1.PersistentVolume{},
		h,
		slim,
		func(pv *corev1.PersistentVolume) []string {
			if pv.Spec.CSI == nil {
				return nil
			}

			return []string{pv.Spec.CSI.VolumeHandle}
		},
	)
}

// Classes watches all StorageClasses.
func (c *Client) Classes(h Hints) *Watch[storagev1.StorageClass] {
	return newWatch(c.storage, "storageclasses", all, &storagev1.StorageClass{}, h,
		func(s *storagev1.StorageClass) { s.ManagedFields = nil }, nil)
}

// CSINodes watches all CSINodes.
func (c *Client) CSINodes(h Hints) *Watch[storagev1.CSINode] {
	return newWatch(c.storage, "csinodes", all, &storagev1.CSINode{}, h,
		func(n *storagev1.CSINode) { n.ManagedFields, n.Annotations = nil, nil }, nil)
}

// Driver watches the CSIDriver of that name.
func (c *Client) Driver(name string, h Hints) *Watch[storagev1.CSIDriver] {
	one := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	}
	return newWatch(
		c.storage,
		"csidrivers",
		one,
		&storagev1.CSIDriver{},
		h,
		func(d *storagev1.CSIDriver) { d.ManagedFields = nil },
		nil,
	)
}

// Capacities watches the CSIStorageCapacities with a label.
func (c *Client) Capacities(label string, h Hints) *Watch[storagev1.CSIStorageCapacity] {
	labelled := func(o *metav1.ListOptions) { o.LabelSelector = label }
	return newWatch(c.storage, capacities, labelled, &storagev1.CSIStorageCapacity{}, h,
		func(s *storagev1.CSIStorageCapacity) { s.ManagedFields = nil }, nil)
}

func all(*metav1.ListOptions) {}

// byIndex is the name of a watch's only index.
const byIndex = "by"

// newWatch watches the objects of one kind that the options select. slim takes away what need not be kept of
// one; index, if there is one, gives the words by which what is left of it is found.
func newWatch[T any, P interface {
	*T
	runtime.Object
}](
	client *rest.RESTClient,
	resource string,
	options func(*metav1.ListOptions),
	kind P,
	h Hints,
	slim func(*T),
	index func(*T) []string,
) *Watch[T] {
	hint := func(call func(string)) func(any) {
		return func(obj any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil && call != nil {
				call(key)
			}
		}
	}

	changed := hint(h.Changed)
	indexers := cache.Indexers{byIndex: func(obj any) ([]string, error) {
		if o, ok := obj.(*T); ok && index != nil {
			return index(o), nil
		}

		return nil, nil
	}}

	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewFilteredListWatchFromClient(client, resource, metav1.NamespaceAll, options),
		ObjectType:    kind,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    changed,
			UpdateFunc: func(_, obj any) { changed(obj) },
			DeleteFunc: hint(h.Gone),
		},
		Indexers: indexers,
		Transform: func(obj any) (any, error) {
			if o, ok := obj.(*T); ok {
				slim(o)
			}

			return obj, nil
		},
	})

	return &Watch[T]{store: store.(cache.Indexer), controller: controller}
}

// Run watches until ctx ends.
func (w *Watch[T]) Run(ctx context.Context) { w.controller.RunWithContext(ctx) }

// Filled reports whether all objects that there were at the start are there.
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

// By returns the objects that the watch's index has under a word.
func (w *Watch[T]) By(word string) []*T {
	objects, err := w.store.ByIndex(byIndex, word)
	if err != nil {
		return nil
	}
	var found []*T
	for _, obj := range objects {
		if o, ok := obj.(*T); ok {
			found = append(found, o)
		}
	}
	return found
}
