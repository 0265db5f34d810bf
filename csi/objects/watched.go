package objects

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/queue"
	"github.com/trivet-node/trivet/internal/kube/storage"
	"github.com/trivet-node/trivet/internal/retry"
)

// Watched are the objects that the controllers of a node watch together, each as it was last seen. A further
// controller's are added here. What is returned is shared: it must not be changed.
type Watched struct {
	Claims     *Kind[corev1.PersistentVolumeClaim]
	Volumes    *Kind[corev1.PersistentVolume] // By finds them by their CSI volume handle
	Classes    *Kind[storagev1.StorageClass]
	CSINodes   *Kind[storagev1.CSINode]
	Drivers    *Kind[storagev1.CSIDriver]          // this driver's alone
	Capacities *Kind[storagev1.CSIStorageCapacity] // this node's
}

// Kind are the watched objects of one kind.
type Kind[T any] struct {
	*kube.Watch[T]
	listeners []func(before, now *T)
}

func newKind[T any](source kube.Objects[T], cfg kube.WatchConfig[T]) *Kind[T] {
	k := &Kind[T]{}
	cfg.Changed = func(before, now *T) {
		for _, f := range k.listeners {
			f(before, now)
		}
	}
	k.Watch = kube.NewWatch(source, cfg)
	return k
}

// OnChange adds a function that is called with each change; before is nil for an object that came, now for
// one that has gone. It must not block. OnChange is not called after Watched.Run.
func (k *Kind[T]) OnChange(f func(before, now *T)) { k.listeners = append(k.listeners, f) }

// Enqueue adds the key of each object that changes, came or has gone to a queue.
func (k *Kind[T]) Enqueue(q *queue.Queue) {
	k.OnChange(func(before, now *T) {
		if now == nil {
			now = before
		}
		q.Add(kube.Key(now))
	})
}

// New returns the objects of a driver's node. There are none before Run.
func New(client *kube.Client, local Local) *Watched {
	volumes := slimVolumes{
		local:       local,
		annotations: map[string]string{ProvisionedBy: local.Driver},
		affinity:    local.Affinity(),
	}

	return &Watched{
		Claims: newKind(kube.Claims(client), kube.WatchConfig[corev1.PersistentVolumeClaim]{Slim: slimClaim}),
		Volumes: newKind(kube.Volumes(client), kube.WatchConfig[corev1.PersistentVolume]{
			Slim:  volumes.slim,
			Index: handleOf,
		}),
		Classes: newKind(storage.Classes(client), kube.WatchConfig[storagev1.StorageClass]{
			Slim: func(s *storagev1.StorageClass) { s.ManagedFields = nil },
		}),
		CSINodes: newKind(storage.CSINodes(client), kube.WatchConfig[storagev1.CSINode]{
			Slim: func(n *storagev1.CSINode) { slimMeta(&n.ObjectMeta); n.Annotations = nil },
		}),
		Drivers: newKind(storage.CSIDrivers(client), kube.WatchConfig[storagev1.CSIDriver]{
			Field: "metadata.name=" + local.Driver,
			Slim:  func(d *storagev1.CSIDriver) { d.ManagedFields = nil },
		}),
		Capacities: newKind(storage.Capacities(client), kube.WatchConfig[storagev1.CSIStorageCapacity]{
			Label: local.TopologyKey + "=" + local.Node,
			Slim:  func(c *storagev1.CSIStorageCapacity) { c.ManagedFields = nil },
		}),
	}
}

// Run watches until ctx ends.
func (w *Watched) Run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { w.Claims.Run(ctx) })
	group.Go(func() { w.Volumes.Run(ctx) })
	group.Go(func() { w.Classes.Run(ctx) })
	group.Go(func() { w.CSINodes.Run(ctx) })
	group.Go(func() { w.Drivers.Run(ctx) })
	group.Go(func() { w.Capacities.Run(ctx) })
	group.Wait()
}

// AwaitListed waits until all objects that there were at the start are known, or ctx ends.
func (w *Watched) AwaitListed(ctx context.Context) error {
	return kube.AwaitListed(ctx, w.Classes, w.CSINodes, w.Volumes, w.Claims, w.Drivers, w.Capacities)
}

// Nodes returns the names of the nodes on which the driver is registered.
func (w *Watched) Nodes(local Local) []string {
	var names []string
	for _, n := range w.CSINodes.All() {
		if local.Runs(n) {
			names = append(names, n.Name)
		}
	}
	return names
}

const (
	workers     = 16 // of each queue; calls to the driver run side by side
	callTimeout = 2 * time.Minute
)

// NewQueue returns a queue with the pauses that all controllers of the node have after a failure.
func NewQueue() *queue.Queue {
	return queue.New(retry.Backoff{First: 200 * time.Millisecond, Max: time.Minute})
}

// Work looks at the objects whose keys are in a queue until ctx ends. One where look fails is looked at
// again, later each time.
func Work(ctx context.Context, q *queue.Queue, log *slog.Logger, look func(context.Context, string) error) {
	q.Run(ctx, workers, func(ctx context.Context, key string) error {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		err := look(callCtx, key)
		if err != nil && ctx.Err() == nil {
			log.Warn("try again later", "object", key, "err", err)
		}
		return err
	})
}

// Each node watches the claims and volumes of the whole cluster. What is kept of them in memory is what
// decisions rest on; small maps are most of an object's size.

// slimVolumes has what all volumes of a node share.
type slimVolumes struct {
	local       Local
	annotations map[string]string
	affinity    *corev1.VolumeNodeAffinity
}

// slim keeps that a volume of another driver exists; of one of this driver its handle, too; of those on this
// node what disposal and growth need.
func (s slimVolumes) slim(pv *corev1.PersistentVolume) {
	if !s.local.Holds(pv) {
		source := pv.Spec.CSI
		*pv = corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{
			Name:            pv.Name,
			UID:             pv.UID,
			ResourceVersion: pv.ResourceVersion,
		}}
		if source != nil && source.Driver == s.local.Driver {
			pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{
				Driver:       source.Driver,
				VolumeHandle: source.VolumeHandle,
			}
		}

		return
	}

	slimMeta(&pv.ObjectMeta)
	if pv.Annotations[ProvisionedBy] == s.local.Driver {
		pv.Annotations = s.annotations
	} else {
		pv.Annotations = nil
	}

	pv.Spec.NodeAffinity = s.affinity
	pv.Spec.CSI.VolumeAttributes = nil
	pv.Spec.MountOptions = nil
	pv.Spec.AccessModes = nil
}

func handleOf(pv *corev1.PersistentVolume) []string {
	if pv.Spec.CSI == nil {
		return nil
	}
	return []string{pv.Spec.CSI.VolumeHandle}
}

// slimClaim keeps all of a claim without a volume; of one with a volume what growth and attributes need, if
// it asks for more than it has, or for others. A change comes with the whole claim again.
func slimClaim(c *corev1.PersistentVolumeClaim) {
	slimMeta(&c.ObjectMeta)
	if c.Spec.VolumeName == "" {
		return
	}
	c.Annotations, c.Finalizers = nil, nil
	c.Spec = corev1.PersistentVolumeClaimSpec{
		VolumeName:                c.Spec.VolumeName,
		Resources:                 c.Spec.Resources,
		VolumeAttributesClassName: c.Spec.VolumeAttributesClassName,
	}
	changes := AsksForMore(c) || len(c.Status.AllocatedResourceStatuses) > 0 || AsksForAttributes(c)
	if c.Status.Phase != corev1.ClaimBound || !changes {
		c.Spec = corev1.PersistentVolumeClaimSpec{VolumeName: c.Spec.VolumeName}
		c.Status = corev1.PersistentVolumeClaimStatus{}
	}
}

func slimMeta(m *metav1.ObjectMeta) {
	m.ManagedFields = nil
	m.Labels = nil
	m.OwnerReferences = nil
}
