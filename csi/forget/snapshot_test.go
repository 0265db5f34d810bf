package forget_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/forget"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// snapshotOn is a content of the driver's that the driver of a node has taken, or none has (""), of a volume.
func snapshotOn(name, node, volume string) *snapshotv1.VolumeSnapshotContent {
	return &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metaOn(name, node, objects.SnapshotFinalizer),
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver:            csitest.Here.Driver,
			Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &volume},
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: csitest.Namespace, Name: "of-" + name},
		},
	}
}

func metaOn(name, node, finalizer string) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{
		Name:       name,
		UID:        types.UID("uid-of-" + name),
		Finalizers: []string{finalizer},
	}
	if node != "" {
		meta.Annotations = map[string]string{csitest.Here.TopologyKey: node}
	}
	return meta
}

func groupOn(name, node, volume string) *groupv1.VolumeGroupSnapshotContent {
	return &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metaOn(name, node, objects.GroupSnapshotFinalizer),
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			Driver: csitest.Here.Driver,
			Source: groupv1.VolumeGroupSnapshotContentSource{VolumeHandles: []string{volume}},
		},
	}
}

// withSnapshots has snapshots and groups on both nodes, and those that no driver has taken.
func withSnapshots(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	for name, node := range map[string]string{"there": gone, "here": csitest.Node} {
		f.Put(snapshotOn("s-"+name, node, name))
		f.Put(groupOn("g-"+name, node, name))
		f.Put(snapshotOn("untaken-"+name, "", name))
		f.Put(groupOn("untaken-"+name, "", name))
	}

	other := snapshotOn("s-other", gone, "other")
	other.Spec.Driver = "csi.example.org"
	f.Put(other)
	return f
}

func (f *fixture) snapshots() []*snapshotv1.VolumeSnapshotContent {
	return kubetest.All[snapshotv1.VolumeSnapshotContent](f.Server, "volumesnapshotcontents")
}

// contents are the names of the contents that there are.
func (f *fixture) contents() []string {
	f.T.Helper()
	var names []string
	for _, c := range f.snapshots() {
		names = append(names, "snapshot "+c.Name)
	}
	const groups = "volumegroupsnapshotcontents"
	for _, c := range kubetest.All[groupv1.VolumeGroupSnapshotContent](f.Server, groups) {
		names = append(names, "group "+c.Name)
	}
	slices.Sort(names)
	return names
}

// stayed are those of withSnapshots that have nothing to do with the node that is gone.
var stayed = []string{
	"group g-here", "group untaken-here", "snapshot s-here", "snapshot s-other", "snapshot untaken-here",
}

func TestSnapshotsOfANodeAreForgotten(t *testing.T) {
	f := withSnapshots(t)
	dropped, err := f.forgetter.Node(t.Context(), gone)
	if err != nil || len(dropped) != 5 {
		t.Errorf("forgot %v, %v", dropped, err)
	}
	for _, want := range []string{
		"VolumeSnapshotContent s-there (VolumeSnapshot ns/of-s-there)",
		"VolumeGroupSnapshotContent g-there (nothing was bound to it)",
	} {
		is := func(one forget.Forgotten) bool { return one.String() == want }
		if !slices.ContainsFunc(dropped, is) {
			t.Errorf("%q is not among %v", want, dropped)
		}
	}
	if left := f.contents(); !slices.Equal(left, stayed) {
		t.Errorf("left are %q", left)
	}
}

func TestSnapshotsOfAMissingNodeAreForgottenAfterItsTime(t *testing.T) {
	f := withSnapshots(t)
	stop := f.run(time.Hour)
	f.Eventually("the marks", func() bool {
		marked := 0
		for _, c := range f.snapshots() {
			if c.Annotations[forget.MissingSince] != "" {
				marked++
			}
		}
		return marked == 2
	})
	stop()

	f.forgetter = newForgetter(f.Cluster, f.events)
	defer f.run(time.Millisecond)()
	f.Eventually("no contents but those of the node that is there", func() bool {
		return slices.Equal(f.contents(), stayed)
	})
}

// Which node a snapshot is on that no driver has taken only its volume says: that does not go before it.
func TestAVolumeIsForgottenAfterTheSnapshotsThatItSaysTheNodeOf(t *testing.T) {
	f := withSnapshots(t)
	f.ChangeVolume("there", since(time.Now().Add(-2*time.Hour)))
	conflict := apierrors.NewConflict(schema.GroupResource{}, "content", errors.New("it has changed"))
	f.FailOn("delete volumesnapshotcontents", 3, conflict)
	f.FailOn("delete volumegroupsnapshotcontents", 5, conflict)

	defer f.run(time.Millisecond)()
	f.Eventually("the end of the volume", func() bool { return f.VolumeNamed("there") == nil })
	left := f.contents()
	if slices.Contains(left, "snapshot untaken-there") || slices.Contains(left, "group untaken-there") {
		t.Errorf("left are %q", left)
	}
	f.Eventually("the end of all others", func() bool { return slices.Equal(f.contents(), stayed) })
}

// The watch of a kind that is not there yet looks again after a while; a volume is not forgotten meanwhile
// with snapshots that nobody has seen.
func TestSnapshotsOfAKindThatWasNotThereAtFirstAreForgotten(t *testing.T) {
	f := withSnapshots(t)
	f.ChangeVolume("there", since(time.Now().Add(-2*time.Hour)))
	f.FailOn("watch volumesnapshotcontents", 1, apierrors.NewNotFound(schema.GroupResource{}, "kind"))

	defer f.run(time.Millisecond)()
	f.Eventually("the end of the volume", func() bool { return f.VolumeNamed("there") == nil })
	if slices.Contains(f.contents(), "snapshot untaken-there") {
		t.Error("a snapshot is left that nobody will know the node of")
	}
}
