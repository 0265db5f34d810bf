package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Objects are the objects of one kind in the API: Pods(client), Nodes(client) and so on, or Of. All calls
// return the server's errors (package apierrors knows them) as they are. The namespace of objects that have
// none is "". It is safe for concurrent use.
type Objects[T any] struct{ *resource }

// pointer is what a pointer to a type of the API can do.
type pointer[T any] interface {
	*T
	runtime.Object
}

// Of returns the objects of a kind by the types of one and of a list, for kinds that have no function of
// their own:
//
//	kube.Of[coordinationv1.Lease, coordinationv1.LeaseList](c, coordinationv1.SchemeGroupVersion, "leases")
func Of[T, L any, P pointer[T], PL pointer[L]](
	c *Client,
	version schema.GroupVersion,
	name string,
) Objects[T] {
	return Objects[T]{&resource{
		client:   c.Group(version, version, P(new(T)), PL(new(L))),
		name:     name,
		limits:   c.limits,
		makeOne:  func() runtime.Object { return P(new(T)) },
		makeList: func() runtime.Object { return PL(new(L)) },
	}}
}

// as is the answer to a request with its type. The code of all kinds is in resource; what is generic is
// small, as a program has it once for each kind.
func as[T any](object runtime.Object, err error) (*T, error) {
	if err != nil {
		return nil, err
	}
	return any(object).(*T), nil
}

// Get reads an object.
func (o Objects[T]) Get(ctx context.Context, namespace, name string) (*T, error) {
	return as[T](o.get(ctx, namespace, name))
}

// Metadata reads the metadata of an object, for objects that are large.
func (o Objects[T]) Metadata(
	ctx context.Context, namespace, name string,
) (*metav1.PartialObjectMetadata, error) {
	return o.metadata(ctx, namespace, name)
}

// List reads the objects of a namespace, or of all if that is "", and returns the resource version from which
// they can be watched.
func (o Objects[T]) List(
	ctx context.Context, namespace string, options metav1.ListOptions,
) (all []*T, version string, err error) {
	items, version, err := o.items(ctx, namespace, options)
	for _, item := range items {
		all = append(all, any(item).(*T))
	}
	return all, version, err
}

// Create creates an object and returns it as it is stored.
func (o Objects[T]) Create(ctx context.Context, object *T) (*T, error) {
	return as[T](o.create(ctx, any(object).(runtime.Object)))
}

// Update replaces an object and returns it as it is stored.
func (o Objects[T]) Update(ctx context.Context, object *T) (*T, error) {
	return as[T](o.update(ctx, any(object).(runtime.Object)))
}

// Patch changes an object, or its subresource if one is named, and returns it as it is stored.
func (o Objects[T]) Patch(
	ctx context.Context,
	namespace, name string,
	kind types.PatchType,
	patch []byte,
	subresource ...string,
) (*T, error) {
	return as[T](o.patch(ctx, namespace, name, kind, patch, subresource))
}

// Apply makes an object what the JSON says, whether it existed or not (server-side apply). Fields that
// another manager owns are taken over.
func (o Objects[T]) Apply(
	ctx context.Context, namespace, name, manager string, object []byte,
) (*T, error) {
	return as[T](o.apply(ctx, namespace, name, manager, object))
}

// Delete deletes an object as the options say; the zero value are the kind's usual ones.
func (o Objects[T]) Delete(
	ctx context.Context, namespace, name string, options metav1.DeleteOptions,
) error {
	return o.delete(ctx, namespace, name, options)
}

// Key is the name of an object within its kind: "namespace/name", or "name" if it has no namespace.
func Key[T any](object *T) string { return keyOf(any(object).(metav1.Object)) }

// Newer reports whether a is a newer version of one object than b (KEP-5504: resource versions compare since
// Kubernetes 1.35). Versions that do not compare are taken as they come.
func Newer[T any](a, b *T) bool { return newer(any(a).(metav1.Object), any(b).(metav1.Object)) }
