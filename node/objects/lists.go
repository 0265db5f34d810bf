package objects

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/trivet-node/trivet/node/kubeapi"
)

// lists are the kinds that are list-watched whole.
type lists struct {
	services, drivers, classes *list
}

// list is one list-watch: the store that it fills and how to know that it is filled.
type list struct {
	store      cache.Indexer
	controller cache.Controller
}

func newLists(c *kubeapi.Client) *lists {
	return &lists{
		services: newList(c.Core, "services", &v1.Service{}, stripService),
		drivers:  newList(c.Storage, "csidrivers", &storagev1.CSIDriver{}, stripMeta),
		classes:  newList(c.Node, "runtimeclasses", &nodev1.RuntimeClass{}, stripMeta),
	}
}

func newList(c *rest.RESTClient, resource string, kind runtime.Object, transform cache.TransformFunc) *list {
	l := &list{}
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(c, resource, metav1.NamespaceAll, fields.Everything()),
		ObjectType:    kind,
		Handler:       cache.ResourceEventHandlerFuncs{},
		Indexers:      cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
		Transform:     transform,
	})
	l.store, l.controller = store.(cache.Indexer), controller
	return l
}

// run keeps the lists until ctx ends.
func (l *lists) run(ctx context.Context) {
	var running sync.WaitGroup
	for _, one := range []*list{l.services, l.drivers, l.classes} {
		running.Go(func() { one.controller.RunWithContext(ctx) })
	}
	running.Wait()
}

// synced waits until the first list has been taken.
func (l *list) synced(ctx context.Context) error {
	if l.controller.HasSynced() || cache.WaitForCacheSync(ctx.Done(), l.controller.HasSynced) {
		return nil
	}
	return errors.New("the API server has not answered yet")
}

func stripMeta(obj any) (any, error) {
	if m, ok := obj.(metav1.Object); ok {
		m.SetManagedFields(nil)
		m.SetAnnotations(nil)
	}
	return obj, nil
}

// stripService keeps what service environment variables are made of.
func stripService(obj any) (any, error) {
	s, ok := obj.(*v1.Service)
	if !ok {
		return obj, nil
	}

	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:            s.Name,
			Namespace:       s.Namespace,
			UID:             s.UID,
			ResourceVersion: s.ResourceVersion,
		},
		Spec: v1.ServiceSpec{ClusterIP: s.Spec.ClusterIP, Ports: s.Spec.Ports, Type: s.Spec.Type},
	}, nil
}

// Services returns the services of a namespace that have a cluster IP, sorted by name, with only names,
// cluster IP and ports filled in. Without waiting for the API server they are those known so far.
func (c *Cache) Services(ctx context.Context, namespace string, wait bool) ([]*v1.Service, error) {
	if wait {
		if err := c.lists.services.synced(ctx); err != nil {
			return nil, fmt.Errorf("list services: %w", err)
		}
	}

	found, err := c.lists.services.store.ByIndex(cache.NamespaceIndex, namespace)
	if err != nil {
		return nil, err
	}

	var out []*v1.Service
	for _, o := range found {
		if s, ok := o.(*v1.Service); ok && net.ParseIP(s.Spec.ClusterIP) != nil {
			out = append(out, s)
		}
	}

	slices.SortFunc(out, func(a, b *v1.Service) int {
		if a.Name < b.Name {
			return -1
		}

		return 1
	})

	return out, nil
}

// CSIDriver returns the driver's object, NotFound when the cluster has none (all defaults apply then).
func (c *Cache) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	return byName[storagev1.CSIDriver](ctx, c.lists.drivers, c.client.Storage, "csidrivers", name)
}

// RuntimeClass returns the class, NotFound when the cluster has none of that name.
func (c *Cache) RuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error) {
	return byName[nodev1.RuntimeClass](ctx, c.lists.classes, c.client.Node, "runtimeclasses", name)
}

// byName looks into the list, and asks the server when that has nothing: the object may be newer than the
// last event.
func byName[T any](ctx context.Context, l *list, client *rest.RESTClient, resource, name string) (*T, error) {
	if err := l.synced(ctx); err != nil {
		return nil, fmt.Errorf("list %s: %w", resource, err)
	}
	if o, ok, err := l.store.GetByKey(name); err == nil && ok {
		return o.(*T), nil
	}
	fresh := any(new(T)).(runtime.Object)
	if err := client.Get().Resource(resource).Name(name).Do(ctx).Into(fresh); err != nil {
		return nil, err
	}
	return any(fresh).(*T), nil
}

// PersistentVolumeClaim reads a claim from the API server.
func (c *Cache) PersistentVolumeClaim(
	ctx context.Context,
	namespace, name string,
) (*v1.PersistentVolumeClaim, error) {
	claim := &v1.PersistentVolumeClaim{}
	err := kubeapi.Patient(
		ctx,
		func() error { return c.read("persistentvolumeclaims", namespace, name).Do(ctx).Into(claim) },
	)
	return claim, err
}

// PersistentVolume reads a volume from the API server.
func (c *Cache) PersistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	pv := &v1.PersistentVolume{}
	err := kubeapi.Patient(
		ctx,
		func() error { return c.client.Core.Get().Resource("persistentvolumes").Name(name).Do(ctx).Into(pv) },
	)
	return pv, err
}

// ClusterTrustBundle reads a bundle from the API server.
func (c *Cache) ClusterTrustBundle(
	ctx context.Context,
	name string,
) (*certificatesv1.ClusterTrustBundle, error) {
	bundle := &certificatesv1.ClusterTrustBundle{}
	err := kubeapi.Patient(ctx, func() error {
		return c.client.Certificates.Get().Resource("clustertrustbundles").Name(name).Do(ctx).Into(bundle)
	})
	return bundle, err
}

// ClusterTrustBundles reads the bundles of a signer that the selector selects.
func (c *Cache) ClusterTrustBundles(
	ctx context.Context,
	signer string,
	selector labels.Selector,
) ([]certificatesv1.ClusterTrustBundle, error) {
	options := &metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", signer).String(),
		LabelSelector: selector.String(),
	}

	found := &certificatesv1.ClusterTrustBundleList{}
	err := kubeapi.Patient(ctx, func() error {
		return c.client.Certificates.Get().Resource("clustertrustbundles").VersionedParams(
			options,
			c.client.Params,
		).Do(ctx).Into(found)
	})

	return found.Items, err
}

// VolumeAttachment reads an attachment from the API server.
func (c *Cache) VolumeAttachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	va := &storagev1.VolumeAttachment{}
	err := kubeapi.Patient(
		ctx,
		func() error { return c.client.Storage.Get().Resource("volumeattachments").Name(name).Do(ctx).Into(va) },
	)
	return va, err
}

// notFound is the error for an object that does not exist.
func notFound(resource, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: resource}, name)
}
