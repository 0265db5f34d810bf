package capacity

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// objectFor is a capacity as it is published.
func objectFor(class, bytes string) *storagev1.CSIStorageCapacity {
	return &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      nameOf(csitest.Node, class),
			Labels:    map[string]string{csitest.Here.TopologyKey: csitest.Node},
		},
		StorageClassName:  class,
		Capacity:          new(resource.MustParse(bytes)),
		MaximumVolumeSize: new(resource.MustParse(bytes)),
		NodeTopology: &metav1.LabelSelector{
			MatchLabels: map[string]string{csitest.Here.TopologyKey: csitest.Node},
		},
	}
}

func TestDifference(t *testing.T) {
	right := objectFor("a", "1Gi")
	elsewhere := objectFor("a", "1Gi")
	elsewhere.Namespace = "other"
	changed := func(change func(*storagev1.CSIStorageCapacity)) []*storagev1.CSIStorageCapacity {
		object := objectFor("a", "1Gi")
		change(object)
		return []*storagev1.CSIStorageCapacity{object}
	}

	for _, c := range []struct {
		name          string
		wanted        map[string]string
		have          []*storagev1.CSIStorageCapacity
		apply, remove []string
	}{
		{"nothing", nil, nil, nil, nil},
		{"new class", map[string]string{"a": "1Gi"}, nil, []string{"a"}, nil},
		{"right", map[string]string{"a": "1Gi"}, []*storagev1.CSIStorageCapacity{right}, nil, nil},
		{
			"other bytes",
			map[string]string{"a": "2Gi"},
			[]*storagev1.CSIStorageCapacity{right},
			[]string{"a"},
			nil,
		},
		{"class is gone", nil, []*storagev1.CSIStorageCapacity{right}, nil, []string{right.Name}},
		{"in another namespace", nil, []*storagev1.CSIStorageCapacity{elsewhere}, nil, nil},
		{"without capacity", map[string]string{"a": "1Gi"}, changed(func(o *storagev1.CSIStorageCapacity) {
			o.Capacity = nil
		}), []string{"a"}, nil},
		{"of another size", map[string]string{"a": "1Gi"}, changed(func(o *storagev1.CSIStorageCapacity) {
			o.MaximumVolumeSize = new(resource.MustParse("1"))
		}), []string{"a"}, nil},
		{"for another node", map[string]string{"a": "1Gi"}, changed(func(o *storagev1.CSIStorageCapacity) {
			o.NodeTopology.MatchLabels[csitest.Here.TopologyKey] = "b"
		}), []string{"a"}, nil},
		{"for another class", map[string]string{"a": "1Gi"}, changed(func(o *storagev1.CSIStorageCapacity) {
			o.StorageClassName = "b"
		}), []string{"a"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			apply, remove := difference(csitest.Here, c.wanted, c.have)
			if !slices.Equal(apply, c.apply) || !slices.Equal(remove, c.remove) {
				t.Errorf("apply %q, remove %q; want %q, %q", apply, remove, c.apply, c.remove)
			}
		})
	}
}

func TestOnlyClassesThatWaitHereArePublished(t *testing.T) {
	waiting := storagev1.VolumeBindingWaitForFirstConsumer
	foreign := csitest.NewClass("x", waiting)
	foreign.Provisioner = "other"
	elsewhere := csitest.NewClass("x", waiting)
	elsewhere.AllowedTopologies = []corev1.TopologySelectorTerm{{
		MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: csitest.Here.TopologyKey, Values: []string{"b"}},
		},
	}}

	for _, c := range []struct {
		name  string
		class *storagev1.StorageClass
		want  bool
	}{
		{"waits", csitest.NewClass("x", waiting), true},
		{"immediate", csitest.NewClass("x", storagev1.VolumeBindingImmediate), false},
		{"of another driver", foreign, false},
		{"not allowed here", elsewhere, false},
	} {
		if got := isPublished(csitest.Here, c.class); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// start runs a publisher in a cluster.
func start(t *testing.T) *csitest.Cluster {
	t.Helper()
	c := csitest.NewCluster(t)
	run(c, nil)
	return c
}

func run(c *csitest.Cluster, changes <-chan struct{}) {
	c.T.Helper()
	stop := c.Run(func(watched *objects.Watched, _ *event.Recorder) []func(context.Context) {
		p := New(Config{
			Local:   csitest.Here,
			Objects: watched,
			Client:  c.Client,
			CSI:     c.CSI,
			Changes: changes,
			Log:     c.Log,
		})

		return []func(context.Context){p.Run}
	})

	c.T.Cleanup(stop)
}

// of returns the capacity that is published for a class, nil if none is.
func of(c *csitest.Cluster, class string) *storagev1.CSIStorageCapacity {
	c.T.Helper()
	name := nameOf(csitest.Node, class)
	return kubetest.Get[storagev1.CSIStorageCapacity](c.Server, "csistoragecapacities", namespace, name)
}

func TestSchedulerLearnsWhatTheNodeHasLeft(t *testing.T) {
	c := start(t)
	c.Eventually("the capacity", func() bool { return of(c, csitest.Waiting) != nil })
	got := of(c, csitest.Waiting)
	if got.StorageClassName != csitest.Waiting || got.Capacity.Value() != csitest.Capacity ||
		got.NodeTopology.MatchLabels[csitest.Here.TopologyKey] != csitest.Node ||
		len(got.OwnerReferences) != 1 || got.OwnerReferences[0].UID != "node-1" {
		t.Errorf("capacity %+v", got)
	}

	if of(c, csitest.Immediate) != nil {
		t.Error("the capacity for a class that does not wait is published")
	}

	c.Remove("storageclasses", "", csitest.Waiting)
	c.Eventually("it is removed with its class", func() bool { return of(c, csitest.Waiting) == nil })
}

func TestFileSystemOfTheClassCounts(t *testing.T) {
	c := start(t)
	class := csitest.NewClass("xfs", storagev1.VolumeBindingWaitForFirstConsumer)
	class.Parameters = map[string]string{objects.FSType: "xfs"}
	c.Put(class)
	c.Eventually("the capacity", func() bool { return of(c, "xfs") != nil })
	if got := of(c, "xfs").Capacity.Value(); got != csitest.CapacityXFS {
		t.Errorf("capacity %d", got)
	}
}

// The claim is sent here, and its event says why there is no volume.
func TestClassThatCannotBeServedIsLetThrough(t *testing.T) {
	c := csitest.NewCluster(t)
	c.CSI.FailOn("GetCapacity", status.Error(codes.InvalidArgument, "unknown parameter"))
	run(c, nil)
	c.Eventually("the capacity", func() bool { return of(c, csitest.Waiting) != nil })
	if got := of(c, csitest.Waiting).Capacity.Value(); got != letThrough {
		t.Errorf("capacity %d", got)
	}
}

func TestObjectsOfNoClassAreRemoved(t *testing.T) {
	c := csitest.NewCluster(t)
	old := objectFor("gone", "1Gi")
	c.Put(old)
	run(c, nil)
	c.Eventually("it is removed", func() bool { return of(c, "gone") == nil })
}

// The garbage collector takes the objects of a Node that is gone; the Node comes back while the driver runs
// on.
func TestCapacityComesBackAfterItWasRemoved(t *testing.T) {
	c := start(t)
	c.Eventually("the capacity", func() bool { return of(c, csitest.Waiting) != nil })
	c.Remove("nodes", "", csitest.Node)
	c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: csitest.Node, UID: "node-2"}})
	c.Remove("csistoragecapacities", namespace, nameOf(csitest.Node, csitest.Waiting))
	c.Eventually("it is back, of the new Node", func() bool {
		got := of(c, csitest.Waiting)
		return got != nil && got.OwnerReferences[0].UID == "node-2"
	})

	wrong := of(c, csitest.Waiting)
	wrong.Capacity = new(resource.MustParse("1"))
	c.Put(wrong)
	c.Eventually("it is right again", func() bool {
		return of(c, csitest.Waiting).Capacity.Value() == csitest.Capacity
	})
}

func TestCapacityGoesWithTheCSIDriver(t *testing.T) {
	c := start(t)
	c.Eventually("the capacity", func() bool { return of(c, csitest.Waiting) != nil })
	c.Remove("csidrivers", "", csitest.Here.Driver)
	c.Eventually("it is gone", func() bool { return of(c, csitest.Waiting) == nil })
}

func TestChangesOfTheVolumesLeadToALook(t *testing.T) {
	c := csitest.NewCluster(t)
	c.CSI.Shrink()
	changes := make(chan struct{}, 1)
	run(c, changes)
	c.Eventually("the capacity", func() bool { return of(c, csitest.Waiting) != nil })
	before := of(c, csitest.Waiting).Capacity.Value()
	changes <- struct{}{}
	c.Eventually("it is less", func() bool { return of(c, csitest.Waiting).Capacity.Value() < before })
}

// Each look at a disk that is being written to finds another number. What was written comes back as a change
// of the object, which must not lead to the next look.
func TestOwnWritesLeadToNoLook(t *testing.T) {
	c := csitest.NewCluster(t)
	p := New(Config{
		Local:   csitest.Here,
		Objects: objects.New(c.Client, csitest.Here),
		Client:  c.Client,
		CSI:     c.CSI,
		Log:     c.Log,
	})

	p.written[csitest.Waiting] = "1Gi"
	for _, change := range []struct {
		object *storagev1.CSIStorageCapacity
		want   bool
	}{
		{objectFor(csitest.Waiting, "1Gi"), true},
		{objectFor(csitest.Waiting, "2Gi"), false},
		{objectFor("other", "1Gi"), false},
		{nil, false},
	} {
		if got := p.isEcho(change.object); got != change.want {
			t.Errorf("%v: %t", change.object, got)
		}
	}
}
