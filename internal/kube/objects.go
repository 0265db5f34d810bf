package kube

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Objects are the objects of one kind in the API: Pods(client), Nodes(client) and so on. All calls return the
// server's errors (package apierrors knows them) as they are. The namespace of objects that have none is "".
// It is safe for concurrent use.
type Objects[T any] struct {
	client   *rest.RESTClient
	resource string
	makeOne  func() runtime.Object // a *T
	makeList func() runtime.Object
}

// pointer is what a pointer to a type of the API can do.
type pointer[T any] interface {
	*T
	runtime.Object
}

// kind makes the Objects of a type and the type of its list.
func kind[T, L any, P pointer[T], PL pointer[L]](
	c *Client,
	version schema.GroupVersion,
	resource string,
) Objects[T] {
	return Objects[T]{
		client:   c.group(version, schemeOf(version, P(new(T)), PL(new(L)))),
		resource: resource,
		makeOne:  func() runtime.Object { return P(new(T)) },
		makeList: func() runtime.Object { return PL(new(L)) },
	}
}

// into is the answer to a request.
func (o Objects[T]) into(ctx context.Context, request *rest.Request) (*T, error) {
	answer := o.makeOne()
	if err := request.Do(ctx).Into(answer); err != nil {
		return nil, err
	}
	return any(answer).(*T), nil
}

// named begins a request about one object.
func (o Objects[T]) named(request *rest.Request, namespace, name string) *rest.Request {
	return request.NamespaceIfScoped(namespace, namespace != "").Resource(o.resource).Name(name)
}

// Get reads an object.
func (o Objects[T]) Get(ctx context.Context, namespace, name string) (*T, error) {
	return o.into(ctx, o.named(o.client.Get(), namespace, name))
}

// Metadata reads the metadata of an object, for objects that are large.
func (o Objects[T]) Metadata(
	ctx context.Context, namespace, name string,
) (*metav1.PartialObjectMetadata, error) {
	const partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	request := o.named(o.client.Get(), namespace, name).SetHeader("Accept", partial)
	data, err := request.Do(ctx).Raw()
	if err != nil {
		return nil, err
	}

	out := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("metadata of %s %s: %w", o.resource, name, err)
	}
	return out, nil
}

// List reads the objects of a namespace, or of all if that is "", and returns the resource version from which
// they can be watched.
func (o Objects[T]) List(
	ctx context.Context, namespace string, options metav1.ListOptions,
) (all []*T, version string, err error) {
	list, err := o.list(ctx, namespace, options)
	if err != nil {
		return nil, "", err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, "", err
	}
	for _, item := range items {
		if one, ok := any(item).(*T); ok {
			all = append(all, one)
		}
	}

	about, err := meta.ListAccessor(list)
	if err != nil {
		return nil, "", err
	}
	return all, about.GetResourceVersion(), nil
}

func (o Objects[T]) list(
	ctx context.Context, namespace string, options metav1.ListOptions,
) (runtime.Object, error) {
	list := o.makeList()
	request := o.client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(o.resource)
	if err := request.VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(list); err != nil {
		return nil, err
	}
	return list, nil
}

// watch begins a watch of a namespace, or of all if that is "".
func (o Objects[T]) watch(
	ctx context.Context, namespace string, options metav1.ListOptions,
) (watch.Interface, error) {
	options.Watch = true
	request := o.client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(o.resource)
	return request.VersionedParams(&options, metav1.ParameterCodec).Watch(ctx)
}

// Create creates an object and returns it as it is stored.
func (o Objects[T]) Create(ctx context.Context, object *T) (*T, error) {
	namespace := accessor(object).GetNamespace()
	request := o.client.Post().NamespaceIfScoped(namespace, namespace != "").Resource(o.resource)
	return o.into(ctx, request.Body(object))
}

// Update replaces an object and returns it as it is stored.
func (o Objects[T]) Update(ctx context.Context, object *T) (*T, error) {
	about := accessor(object)
	return o.into(ctx, o.named(o.client.Put(), about.GetNamespace(), about.GetName()).Body(object))
}

// Patch changes an object, or its subresource if one is named, and returns it as it is stored.
func (o Objects[T]) Patch(
	ctx context.Context,
	namespace, name string,
	kind types.PatchType,
	patch []byte,
	subresource ...string,
) (*T, error) {
	request := o.named(o.client.Patch(kind), namespace, name).SubResource(subresource...)
	return o.into(ctx, request.Body(patch))
}

// Apply makes an object what the JSON says, whether it existed or not (server-side apply). Fields that
// another manager owns are taken over.
func (o Objects[T]) Apply(
	ctx context.Context, namespace, name, manager string, object []byte,
) (*T, error) {
	request := o.named(o.client.Patch(types.ApplyPatchType), namespace, name)
	return o.into(ctx, request.Param("fieldManager", manager).Param("force", "true").Body(object))
}

// Delete deletes an object as the options say; the zero value are the kind's usual ones.
func (o Objects[T]) Delete(
	ctx context.Context, namespace, name string, options metav1.DeleteOptions,
) error {
	return o.named(o.client.Delete(), namespace, name).Body(&options).Do(ctx).Error()
}

// accessor is the metadata of an object. All that Objects are made of have some.
func accessor[T any](object *T) metav1.Object { return any(object).(metav1.Object) }

// Key is the name of an object within its kind: "namespace/name", or "name" if it has no namespace.
func Key[T any](object *T) string {
	about := accessor(object)
	return key(about.GetNamespace(), about.GetName())
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
