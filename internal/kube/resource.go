package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/internal/kube/absent"
	"github.com/trivet-node/trivet/internal/kube/progress"
)

// resource makes the requests of Objects, without their type.
type resource struct {
	client   *rest.RESTClient
	name     string
	limits   Limits
	makeOne  func() runtime.Object
	makeList func() runtime.Object
}

// into is the answer to a request.
func (r *resource) into(ctx context.Context, request *rest.Request) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, r.limits.Answer)
	defer cancel()

	answer := r.makeOne()
	return answer, request.Do(ctx).Into(answer)
}

// in completes a request about the objects of a namespace, or of all if that is "".
func (r *resource) in(request *rest.Request, namespace string) *rest.Request {
	return request.NamespaceIfScoped(namespace, namespace != "").Resource(r.name)
}

// at completes a request about one object.
func (r *resource) at(request *rest.Request, namespace, name string) *rest.Request {
	return r.in(request, namespace).Name(name)
}

func (r *resource) get(ctx context.Context, namespace, name string) (runtime.Object, error) {
	return r.into(ctx, r.at(r.client.Get(), namespace, name))
}

func (r *resource) metadata(
	ctx context.Context, namespace, name string,
) (*metav1.PartialObjectMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, r.limits.Answer)
	defer cancel()

	const partial = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	data, err := r.at(r.client.Get(), namespace, name).SetHeader("Accept", partial).Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	out := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(data, out); err != nil {
		return nil, fmt.Errorf("metadata of %s %s: %w", r.name, name, err)
	}
	return out, nil
}

// list is the answer to a list. It may be long: heard, which may be nil, is called for each part that comes.
func (r *resource) list(
	ctx context.Context, namespace string, options metav1.ListOptions, heard func(),
) (runtime.Object, error) {
	ctx, cancel := progress.Bound(ctx, r.limits.Answer, heard)
	defer cancel()

	list := r.makeList()
	request := r.in(r.client.Get(), namespace).VersionedParams(&options, metav1.ParameterCodec)
	if err := request.Do(ctx).Into(list); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return list, nil
}

// named lists the objects of a name among those of the options.
func (r *resource) named(options metav1.ListOptions) absent.Lister {
	return func(ctx context.Context, namespace, name string) (found int, version string, err error) {
		one := options
		one.FieldSelector = absent.Selector(options.FieldSelector, name)
		items, version, err := r.items(ctx, namespace, one)
		return len(items), version, err
	}
}

// items are the objects of a list, and its resource version.
func (r *resource) items(
	ctx context.Context, namespace string, options metav1.ListOptions,
) ([]runtime.Object, string, error) {
	list, err := r.list(ctx, namespace, options, nil)
	if err != nil {
		return nil, "", err
	}
	about, err := meta.ListAccessor(list)
	if err != nil {
		return nil, "", err
	}
	items, err := meta.ExtractList(list)
	return items, about.GetResourceVersion(), err
}

func (r *resource) watch(
	ctx context.Context, namespace string, options metav1.ListOptions,
) (watch.Interface, error) {
	options.Watch = true
	request := r.in(r.client.Get(), namespace).VersionedParams(&options, metav1.ParameterCodec)

	// The context is that of the events, too: only what comes before them is bounded here.
	ctx, cancel := context.WithCancel(ctx)
	late := time.AfterFunc(r.limits.Answer, cancel)
	events, err := request.Watch(ctx)
	if late.Stop() && err == nil {
		return stream{events, cancel}, nil
	}

	cancel()
	if err == nil {
		events.Stop()
		err = context.Canceled
	}
	return nil, err
}

// stream is a watch that has begun.
type stream struct {
	watch.Interface
	cancel context.CancelFunc
}

// Stop ends the watch.
func (s stream) Stop() {
	s.Interface.Stop()
	s.cancel()
}

func (r *resource) create(ctx context.Context, object runtime.Object) (runtime.Object, error) {
	namespace := object.(metav1.Object).GetNamespace()
	return r.into(ctx, r.in(r.client.Post(), namespace).Body(object))
}

func (r *resource) update(ctx context.Context, object runtime.Object) (runtime.Object, error) {
	about := object.(metav1.Object)
	return r.into(ctx, r.at(r.client.Put(), about.GetNamespace(), about.GetName()).Body(object))
}

func (r *resource) patch(
	ctx context.Context,
	namespace, name string,
	kind types.PatchType,
	patch []byte,
	subresource []string,
) (runtime.Object, error) {
	request := r.at(r.client.Patch(kind), namespace, name).SubResource(subresource...)
	return r.into(ctx, request.Body(patch))
}

func (r *resource) apply(
	ctx context.Context, namespace, name, manager string, object []byte,
) (runtime.Object, error) {
	request := r.at(r.client.Patch(types.ApplyPatchType), namespace, name)
	return r.into(ctx, request.Param("fieldManager", manager).Param("force", "true").Body(object))
}

func (r *resource) delete(
	ctx context.Context, namespace, name string, options metav1.DeleteOptions,
) error {
	ctx, cancel := context.WithTimeout(ctx, r.limits.Answer)
	defer cancel()
	return r.at(r.client.Delete(), namespace, name).Body(&options).Do(ctx).Error()
}

func keyOf(object metav1.Object) string { return key(object.GetNamespace(), object.GetName()) }

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

func newer(a, b metav1.Object) bool {
	order, err := resourceversion.CompareResourceVersion(a.GetResourceVersion(), b.GetResourceVersion())
	return err != nil || order > 0
}
