package heartbeat

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
)

// Watch follows the node's own object: labels, taints and pod ranges are set by others.
func (h *Heart) Watch(ctx context.Context) {
	lw := cache.NewFilteredListWatchFromClient(h.core, "nodes", metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, h.cfg.Name).String()
	})
	cache.NewReflectorWithOptions(
		lw,
		&v1.Node{},
		(*ownNode)(h),
		cache.ReflectorOptions{Name: "this node"},
	).RunWithContext(ctx)
}

// ownNode is the heart as the reflector sees it.
type ownNode Heart

func (o *ownNode) put(obj any) error {
	n, ok := obj.(*v1.Node)
	if !ok {
		return fmt.Errorf("watch of node: unexpected %T", obj)
	}
	(*Heart)(o).Saw(n)
	return nil
}

// Add is called by the reflector.
func (o *ownNode) Add(obj any) error { return o.put(obj) }

// Update is called by the reflector.
func (o *ownNode) Update(obj any) error { return o.put(obj) }

// Delete is called by the reflector: the node registers again.
func (o *ownNode) Delete(obj any) error {
	n, ok := obj.(*v1.Node)
	if !ok {
		return fmt.Errorf("watch of node: unexpected %T", obj)
	}
	h := (*Heart)(o)
	h.mu.Lock()
	h.deleted = n.UID
	h.mu.Unlock()
	h.Nudge()
	return nil
}

// Replace is called by the reflector after a list.
func (o *ownNode) Replace(list []any, _ string) error {
	for _, obj := range list {
		if err := o.put(obj); err != nil {
			return err
		}
	}
	return nil
}

// Resync is called by the reflector.
func (o *ownNode) Resync() error { return nil }

// newer orders versions of the Node. One with another UID was made anew.
func newer(a, b *v1.Node) bool {
	if b == nil || a.UID != b.UID {
		return true
	}
	c, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || c > 0
}
