package objects

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/storage"
)

// lists are the kinds that are list-watched whole.
type lists struct {
	services *kube.Watch[v1.Service]
	drivers  *kube.Watch[storagev1.CSIDriver]
	classes  *kube.Watch[nodev1.RuntimeClass]
}

func newLists(c *kube.Client) lists {
	return lists{
		services: kube.NewWatch(kube.Services(c), kube.WatchConfig[v1.Service]{
			Slim:  slimService,
			Index: func(s *v1.Service) []string { return []string{s.Namespace} },
		}),
		drivers: kube.NewWatch(storage.CSIDrivers(c), kube.WatchConfig[storagev1.CSIDriver]{
			Slim: func(d *storagev1.CSIDriver) { slimMeta(&d.ObjectMeta) },
		}),
		classes: kube.NewWatch(runtimeClasses(c), kube.WatchConfig[nodev1.RuntimeClass]{
			Slim: func(r *nodev1.RuntimeClass) { slimMeta(&r.ObjectMeta) },
		}),
	}
}

// run keeps the lists until ctx ends.
func (l lists) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { l.services.Run(ctx) })
	running.Go(func() { l.drivers.Run(ctx) })
	running.Go(func() { l.classes.Run(ctx) })
	running.Wait()
}

func slimMeta(m *metav1.ObjectMeta) { m.ManagedFields, m.Annotations = nil, nil }

// slimService keeps what service environment variables are made of.
func slimService(s *v1.Service) {
	*s = v1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name:            s.Name,
			Namespace:       s.Namespace,
			UID:             s.UID,
			ResourceVersion: s.ResourceVersion,
		},
		Spec: v1.ServiceSpec{
			ClusterIP: s.Spec.ClusterIP,
			Ports:     s.Spec.Ports,
			Type:      s.Spec.Type,
		},
	}
}

var errNotListed = errors.New("the API server has not answered yet")

// Services returns the services of a namespace that have a cluster IP, sorted by name, with only names,
// cluster IP and ports filled in. Without wait they are those known so far.
func (c *Cache) Services(ctx context.Context, namespace string, wait bool) ([]*v1.Service, error) {
	if wait && kube.AwaitListed(ctx, c.lists.services) != nil {
		return nil, fmt.Errorf("list services: %w", errNotListed)
	}
	out := c.lists.services.By(namespace)
	out = slices.DeleteFunc(out, func(s *v1.Service) bool { return net.ParseIP(s.Spec.ClusterIP) == nil })
	slices.SortFunc(out, func(a, b *v1.Service) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// CSIDriver returns the driver's object, NotFound when the cluster has none (all defaults apply then).
func (c *Cache) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	return byName(ctx, c.lists.drivers, c.reads.drivers, name)
}

// NeedsAttach reports whether volumes of a driver are attached, by its object in the list, and whether that
// is known. It does not wait.
func (c *Cache) NeedsAttach(driver string) (needs, known bool) {
	if !c.lists.drivers.HasListed() {
		return false, false
	}

	found := c.lists.drivers.Get(driver)
	return found == nil || ptr.Deref(found.Spec.AttachRequired, true), true
}

// RuntimeClass returns the class, NotFound when the cluster has none of that name.
func (c *Cache) RuntimeClass(ctx context.Context, name string) (*nodev1.RuntimeClass, error) {
	return byName(ctx, c.lists.classes, c.reads.classes, name)
}

// byName looks into the list, and asks the server when that has nothing: the object may be newer than the
// last event.
func byName[T any](
	ctx context.Context,
	list *kube.Watch[T],
	source kube.Objects[T],
	name string,
) (*T, error) {
	if kube.AwaitListed(ctx, list) != nil {
		return nil, fmt.Errorf("look for %s: %w", name, errNotListed)
	}
	if found := list.Get(name); found != nil {
		return found, nil
	}
	return source.Get(ctx, "", name)
}
