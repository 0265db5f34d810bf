package csitest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/kube/storage"
	"github.com/trivet-node/trivet/internal/retry"
)

// Names of the objects of a Cluster.
const (
	Waiting   = "fast" // the class whose volumes wait for their first consumer
	Immediate = "now"  // the class whose volumes do not

	Node      = "a"
	Claim     = "data"
	Volume    = "pvc-uid-1" // the PersistentVolume and the CSI volume of Claim
	Namespace = "ns"
)

// Here is the driver of the only node.
var Here = objects.Local{
	Driver:      "csi.trivet.dev",
	TopologyKey: "topology.csi.trivet.dev/node",
	Node:        Node,
}

// Cluster is an API server with a driver on one node, two classes and claims.
type Cluster struct {
	*kubetest.Server
	T      *testing.T
	Client *kube.Client
	CSI    *Controller
	Log    *slog.Logger
}

// NewCluster starts an API server with the claims given.
func NewCluster(t *testing.T, claims ...*corev1.PersistentVolumeClaim) *Cluster {
	t.Helper()
	if err := knowSnapshots(); err != nil {
		t.Fatal(err)
	}

	server := kubetest.Start(t)
	c := &Cluster{
		Server: server,
		T:      t,
		Client: server.Client(),
		CSI:    &Controller{},
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	}

	c.Put(NewClass(Waiting, storagev1.VolumeBindingWaitForFirstConsumer))
	c.Put(NewClass(Immediate, storagev1.VolumeBindingImmediate))
	c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: Node, UID: "node-1"}})
	c.Put(&storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: Node},
		Spec: storagev1.CSINodeSpec{
			Drivers: []storagev1.CSINodeDriver{{Name: Here.Driver, NodeID: Node}},
		},
	})

	c.Put(&storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: Here.Driver},
		Spec:       storagev1.CSIDriverSpec{StorageCapacity: new(true)},
	})

	for _, claim := range claims {
		c.Put(claim)
	}

	return c
}

var knowSnapshots = sync.OnceValue(func() error {
	return errors.Join(kubetest.Know(snapshotv1.AddToScheme), kubetest.Know(groupv1.AddToScheme))
})

// NewClass returns a class of the driver.
func NewClass(name string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: name},
		Provisioner:       Here.Driver,
		VolumeBindingMode: &mode,
	}
}

// NewAttributes returns a VolumeAttributesClass of the driver with one parameter.
func NewAttributes(name, key, value string) *storagev1.VolumeAttributesClass {
	return &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		DriverName: Here.Driver,
		Parameters: map[string]string{key: value},
	}
}

// Born is when the claims of NewClaim were created.
var Born = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// NewClaim returns a claim for a class, handed to the driver by the controller-manager, that asks for a size.
func NewClaim(size, class string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         Namespace,
			Name:              Claim,
			UID:               "uid-1",
			CreationTimestamp: metav1.NewTime(Born),
			Annotations:       map[string]string{"volume.kubernetes.io/storage-provisioner": Here.Driver},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			},
		},
	}
}

// Controllers makes controllers of the objects and the recorder given; they run when the objects are known.
type Controllers func(*objects.Watched, *event.Recorder) []func(context.Context)

// Run runs controllers. The returned function ends them.
func (c *Cluster) Run(controllers Controllers) (stop func()) {
	c.T.Helper()
	watched := objects.New(c.Client, Here)
	events := event.New(kube.Events(c.Client), event.Config{Component: Here.Driver, Log: c.Log})
	loops := controllers(watched, events)
	ctx, cancel := context.WithCancel(c.T.Context())
	var group sync.WaitGroup
	group.Go(func() { watched.Run(ctx) })
	group.Go(func() { events.Run(ctx) })
	group.Go(func() {
		if watched.AwaitListed(ctx) != nil {
			return
		}

		for _, loop := range loops {
			group.Go(func() { loop(ctx) })
		}
	})

	return func() {
		cancel()
		group.Wait()
	}
}

// Eventually waits until a condition holds.
func (c *Cluster) Eventually(what string, ok func() bool) {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.T.Context()), 20*time.Second)
	defer cancel()

	for range retry.Every(ctx, 5*time.Millisecond) {
		if ok() {
			return
		}
	}

	c.T.Fatalf("never happened: %s", what)
}

// ClaimNamed returns a claim as it is; the zero claim if it is gone.
func (c *Cluster) ClaimNamed(name string) *corev1.PersistentVolumeClaim {
	c.T.Helper()
	claim := kubetest.Get[corev1.PersistentVolumeClaim](c.Server, "persistentvolumeclaims", Namespace, name)
	if claim == nil {
		return &corev1.PersistentVolumeClaim{}
	}
	return claim
}

// VolumeNamed returns a PersistentVolume as it is; nil if it is gone.
func (c *Cluster) VolumeNamed(name string) *corev1.PersistentVolume {
	c.T.Helper()
	return kubetest.Get[corev1.PersistentVolume](c.Server, "persistentvolumes", "", name)
}

// HasEvent reports whether an event with the reason was recorded.
func (c *Cluster) HasEvent(reason string) bool {
	c.T.Helper()
	return slices.ContainsFunc(kubetest.All[corev1.Event](c.Server, "events"), func(e *corev1.Event) bool {
		return e.Reason == reason
	})
}

// ChangeClaim merges a change into a claim, as somebody else would.
func (c *Cluster) ChangeClaim(name string, change map[string]any) {
	c.T.Helper()
	patch(c, kube.Claims(c.Client), Namespace, name, change)
}

// ChangeVolume is ChangeClaim for a PersistentVolume.
func (c *Cluster) ChangeVolume(name string, change map[string]any) {
	c.T.Helper()
	patch(c, kube.Volumes(c.Client), "", name, change)
}

// ChangeClass is ChangeClaim for a StorageClass.
func (c *Cluster) ChangeClass(name string, change map[string]any) {
	c.T.Helper()
	patch(c, storage.Classes(c.Client), "", name, change)
}

func patch[T any](c *Cluster, all kube.Objects[T], namespace, name string, change map[string]any) {
	c.T.Helper()
	data, err := json.Marshal(change)
	if err == nil {
		_, err = all.Patch(c.T.Context(), namespace, name, types.MergePatchType, data)
	}
	if err != nil {
		c.T.Fatal(err)
	}
}

// Bind does what the controller-manager does with a new volume and its claim.
func (c *Cluster) Bind() {
	c.T.Helper()
	c.Eventually("the volume object", func() bool { return c.VolumeNamed(Volume) != nil })
	c.ChangeVolume(Volume, map[string]any{"status": map[string]any{"phase": "Bound"}})
	c.ChangeClaim(Claim, map[string]any{
		"spec": map[string]any{"volumeName": Volume},
		"status": map[string]any{
			"phase":    "Bound",
			"capacity": map[string]any{"storage": "1Gi"},
		},
	})
}
