package netd

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Node is what routing needs to know of a Node.
type Node struct {
	Name      string
	PodCIDRs  []netip.Prefix
	Addresses []netip.Addr // InternalIP
}

// nodes is the cache of a list-watch of Nodes.
type nodes struct {
	informer cache.SharedIndexInformer
}

// watchNodes starts a list-watch. changed is called after every difference that matters here.
func watchNodes(ctx context.Context, config *rest.Config, changed func()) (*nodes, error) {
	client, err := coreClient(config)
	if err != nil {
		return nil, err
	}
	informer := cache.NewSharedIndexInformerWithOptions(nodeListWatch(client), &corev1.Node{}, cache.SharedIndexInformerOptions{})
	// A Node carries its images and conditions, which change every few seconds and are half of an agent's memory.
	if err := informer.SetTransform(strip); err != nil {
		return nil, err
	}
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() },
		UpdateFunc: func(old, now any) {
			if !same(old, now) {
				changed()
			}
		},
		DeleteFunc: func(any) { changed() },
	})
	if err != nil {
		return nil, err
	}
	go informer.RunWithContext(ctx)
	return &nodes{informer: informer}, nil
}

func coreClient(config *rest.Config) (*rest.RESTClient, error) {
	// The clientset's scheme knows every type of Kubernetes and takes 10 MB for it; two are needed.
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Node{}, &corev1.NodeList{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c := rest.CopyConfig(config)
	c.APIPath, c.GroupVersion = "/api", &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType = "application/vnd.kubernetes.protobuf"
	c.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	return client, nil
}

func nodeListWatch(client *rest.RESTClient) *cache.ListWatch {
	parameters := metav1.ParameterCodec
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.NodeList{}
			err := client.Get().Resource("nodes").VersionedParams(&o, parameters).Do(ctx).Into(list)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return client.Get().Resource("nodes").VersionedParams(&o, parameters).Watch(ctx)
		},
	}
}

// strip keeps of a Node what routing needs.
func strip(object any) (any, error) {
	n, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	slim := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, ResourceVersion: n.ResourceVersion}}
	slim.Spec.PodCIDRs = n.Spec.PodCIDRs
	if len(slim.Spec.PodCIDRs) == 0 && n.Spec.PodCIDR != "" {
		slim.Spec.PodCIDRs = []string{n.Spec.PodCIDR}
	}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			slim.Status.Addresses = append(slim.Status.Addresses, a)
		}
	}
	return slim, nil
}

func same(old, now any) bool {
	a, aOK := old.(*corev1.Node)
	b, bOK := now.(*corev1.Node)
	return aOK && bOK && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) && slices.Equal(a.Status.Addresses, b.Status.Addresses)
}

// synced tells whether the first list is complete. Before that nothing may be withdrawn.
func (n *nodes) synced() bool { return n.informer.HasSynced() }

// list returns the nodes by name. What cannot be parsed is left out and told in problems.
func (n *nodes) list() (all []Node, problems []string) {
	for _, object := range n.informer.GetStore().List() {
		node, ok := object.(*corev1.Node)
		if !ok {
			continue
		}
		parsed := Node{Name: node.Name}
		for _, text := range node.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				parsed.PodCIDRs = append(parsed.PodCIDRs, p.Masked())
			} else {
				problems = append(problems, fmt.Sprintf("node %s: pod CIDR %q: %v", node.Name, text, err))
			}
		}
		for _, a := range node.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				parsed.Addresses = append(parsed.Addresses, ip)
			} else {
				problems = append(problems, fmt.Sprintf("node %s: InternalIP %q: %v", node.Name, a.Address, err))
			}
		}
		all = append(all, parsed)
	}
	slices.SortFunc(all, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return all, problems
}
