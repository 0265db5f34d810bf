package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
)

// nodes is the cache of a list-watch of Nodes.
type nodes struct {
	client   *rest.RESTClient
	informer cache.SharedIndexInformer
	changed  func()

	mu     sync.Mutex
	broken error // why the last list or watch ended
}

// newNodes prepares the list-watch. changed is called when the first list is there and after every difference
// that matters here.
func newNodes(client *rest.RESTClient, changed func()) (*nodes, error) {
	n := &nodes{client: client, changed: changed,
		informer: cache.NewSharedIndexInformerWithOptions(
			nodeListWatch(client),
			&corev1.Node{},
			cache.SharedIndexInformerOptions{},
		)}

	// A Node carries its images and conditions, which change every few seconds and are half of an agent's
	// memory.
	if err := n.informer.SetTransform(strip); err != nil {
		return nil, err
	}
	if err := n.informer.SetWatchErrorHandlerWithContext(n.interrupted); err != nil {
		return nil, err
	}

	_, err := n.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() },
		UpdateFunc: func(old, now any) {
			if !same(old, now) {
				changed()
			}
		},
		DeleteFunc: func(any) { changed() },
	})

	return n, err
}

// run lists and watches until ctx ends.
func (n *nodes) run(ctx context.Context) {
	if n.reach(ctx) != nil {
		return
	}
	var first sync.WaitGroup
	first.Go(func() {
		if n.listed(ctx) {
			n.changed()
		}
	})
	n.informer.RunWithContext(ctx)
	first.Wait()
}

// listed waits for the first list; false when ctx ended before.
func (n *nodes) listed(ctx context.Context) bool {
	select {
	case <-n.informer.HasSyncedChecker().Done():
		return true
	case <-ctx.Done():
		return false
	}
}

// interrupted remembers why there is no list yet. Once there is one, a broken watch is the reflector's own
// business: it resumes.
func (n *nodes) interrupted(ctx context.Context, r *cache.Reflector, err error) {
	if n.synced() {
		cache.DefaultWatchErrorHandler(ctx, r, err)
		return
	}
	n.setBroken(err)
}

func (n *nodes) setBroken(err error) {
	n.mu.Lock()
	n.broken = err
	n.mu.Unlock()
	n.changed()
}

// ErrNoListYet is the state of every start until the API server has answered.
var ErrNoListYet = errors.New("waiting for the API server")

// waiting says why there is no list yet; nil when there is one.
func (n *nodes) waiting() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.synced():
		return nil
	case n.broken != nil:
		return fmt.Errorf("waiting for the API server: %w", n.broken)
	}
	return ErrNoListYet
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

	slim := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:              n.Name,
		UID:               n.UID,
		ResourceVersion:   n.ResourceVersion,
		CreationTimestamp: n.CreationTimestamp,
	}}

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
	return aOK && bOK && a.UID == b.UID && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) &&
		slices.Equal(a.Status.Addresses, b.Status.Addresses)
}

// synced reports whether the first list is complete. Before that nothing may be withdrawn.
func (n *nodes) synced() bool { return n.informer.HasSynced() }

// list returns the nodes by name. What cannot be parsed is left out and told in notes.
func (n *nodes) list() (all []podcidr.Node, notes []string) {
	for _, object := range n.informer.GetStore().List() {
		if node, ok := object.(*corev1.Node); ok {
			parsed, wrong := parseNode(node)
			all, notes = append(all, parsed), append(notes, wrong...)
		}
	}
	slices.SortFunc(all, func(a, b podcidr.Node) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(notes)
	return all, notes
}

func parseNode(node *corev1.Node) (parsed podcidr.Node, notes []string) {
	parsed.Name, parsed.UID, parsed.Created = node.Name, string(node.UID), node.CreationTimestamp.Time
	for _, text := range node.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			notes = append(notes, fmt.Sprintf("node %s: pod CIDR %q: %v", node.Name, text, err))
		case p.Addr().Is4In6():
			notes = append(
				notes,
				fmt.Sprintf("node %s: pod CIDR %q: an IPv4 network in IPv6 writing", node.Name, text),
			)

		default:
			parsed.PodCIDRs = append(parsed.PodCIDRs, p.Masked())
		}
	}

	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}

		if ip, err := netip.ParseAddr(a.Address); err == nil {
			parsed.Addresses = append(parsed.Addresses, ip.WithZone("").Unmap())
		} else {
			notes = append(notes, fmt.Sprintf("node %s: InternalIP %q: %v", node.Name, a.Address, err))
		}
	}

	return parsed, notes
}
