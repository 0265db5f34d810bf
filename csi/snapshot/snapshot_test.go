package snapshot

import (
	"context"
	"slices"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

const (
	content  = "snapcontent-1"
	source   = "vol-source"
	snapshot = "snapshot-uid-1"
)

// newContent is what the snapshot controller makes of a VolumeSnapshot.
func newContent(change func(*snapshotv1.VolumeSnapshotContent)) *snapshotv1.VolumeSnapshotContent {
	c := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name:        content,
			UID:         "uid-content",
			Annotations: map[string]string{},
			Finalizers:  []string{finalizer},
		},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver:            csitest.Here.Driver,
			DeletionPolicy:    snapshotv1.VolumeSnapshotContentDelete,
			VolumeSnapshotRef: corev1.ObjectReference{UID: "uid-1"},
			Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: new(source)},
		},
	}
	if change != nil {
		change(c)
	}
	return c
}

// cluster is a csitest.Cluster with a volume on its node.
type cluster struct{ *csitest.Cluster }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{csitest.NewCluster(t)}
	c.Put(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec: corev1.PersistentVolumeSpec{
			NodeAffinity: csitest.Here.Affinity(),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: csitest.Here.Driver, VolumeHandle: source},
			},
		},
	})
	return c
}

// run runs a snapshotter; the returned function ends it.
func (c *cluster) run() (stop func()) {
	c.T.Helper()
	return c.Run(func(watched *objects.Watched, events *event.Recorder) []func(context.Context) {
		s := New(Config{
			Local:   csitest.Here,
			Objects: watched,
			Client:  c.Client,
			CSI:     c.CSI,
			Events:  events,
			Log:     c.Log,
		})
		return []func(context.Context){s.Run}
	})
}

// content returns the content as it is; nil if it is gone.
func (c *cluster) content() *snapshotv1.VolumeSnapshotContent {
	c.T.Helper()
	return kubetest.Get[snapshotv1.VolumeSnapshotContent](c.Server, "volumesnapshotcontents", "", content)
}

func (c *cluster) isReady() bool {
	now := c.content()
	return now.Status != nil && now.Status.ReadyToUse != nil && *now.Status.ReadyToUse &&
		!hasAnnotation(now, annCreating)
}

// deleted marks the content as the snapshot controller does, and deletes it.
func (c *cluster) delete() {
	c.T.Helper()
	now := c.content()
	now.Annotations[annDeleting] = "yes"
	now.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
	c.Put(now)
}

func TestContentGetsItsSnapshotAndGivesItBack(t *testing.T) {
	c := newCluster(t)
	c.Put(newContent(nil))
	defer c.run()()

	c.Eventually("the snapshot is ready", c.isReady)
	now := c.content()
	if *now.Status.SnapshotHandle != snapshot || *now.Status.RestoreSize != 1<<30 ||
		*now.Status.CreationTime != csitest.Born.UnixNano() ||
		now.Annotations[csitest.Here.TopologyKey] != csitest.Node {
		t.Errorf("content %+v", now)
	}
	if got := c.CSI.Snapshots()[snapshot]; got != source {
		t.Errorf("the snapshot is of %q", got)
	}

	// The volume may go before its snapshots.
	c.Remove("persistentvolumes", "", "pv")
	c.delete()
	c.Eventually("snapshot and object are gone",
		func() bool { return c.content() == nil && len(c.CSI.Snapshots()) == 0 })
}

func TestSnapshotIsMadeAfterItFailed(t *testing.T) {
	c := newCluster(t)
	c.CSI.FailOn("CreateSnapshot", status.Error(codes.ResourceExhausted, "full"))
	c.Put(newContent(nil))
	defer c.run()()

	c.Eventually("the content says why", func() bool {
		now := c.content()
		return now.Status != nil && now.Status.Error != nil && *now.Status.Error.Message == "full"
	})
	c.Eventually("the event", func() bool { return c.HasEvent("SnapshotCreationFailed") })
	c.CSI.FailOn("CreateSnapshot", nil)
	c.Eventually("the snapshot is ready", c.isReady)
	if now := c.content(); now.Status.Error != nil {
		t.Errorf("it still has failed: %v", now.Status.Error)
	}
}

// A snapshot that was made and never became known is deleted with its content.
func TestSnapshotThatNeverBecameKnownIsDeleted(t *testing.T) {
	c := newCluster(t)
	c.CSI.FailOn("CreateSnapshot after", status.Error(codes.Unavailable, "lost"))
	c.Put(newContent(nil))
	stop := c.run()
	c.Eventually("the call", func() bool { return len(c.CSI.Snapshots()) == 1 })
	stop()

	c.delete()
	c.CSI.FailOn("CreateSnapshot after", nil)
	defer c.run()()
	c.Eventually("snapshot and object are gone",
		func() bool { return c.content() == nil && len(c.CSI.Snapshots()) == 0 })
}

func TestRetainedSnapshotOutlivesItsContent(t *testing.T) {
	c := newCluster(t)
	c.Put(newContent(func(c *snapshotv1.VolumeSnapshotContent) {
		c.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
	}))
	defer c.run()()
	c.Eventually("the snapshot is ready", c.isReady)
	c.delete()
	c.Eventually("the object is gone", func() bool { return c.content() == nil })
	if len(c.CSI.Snapshots()) != 1 {
		t.Error("the snapshot is gone, too")
	}
}

// What somebody else has made is taken over by the node that has it.
func TestSnapshotThatIsHereIsFound(t *testing.T) {
	c := newCluster(t)
	c.Put(newContent(nil))
	stop := c.run()
	c.Eventually("the snapshot is ready", c.isReady)
	stop()

	c.Remove("volumesnapshotcontents", "", content)
	c.Put(newContent(func(c *snapshotv1.VolumeSnapshotContent) {
		c.Spec.Source = snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: new(snapshot)}
	}))
	defer c.run()()
	c.Eventually("it is ready", c.isReady)
}

// changed returns a content with some changes.
func changed(all ...func(*snapshotv1.VolumeSnapshotContent)) *snapshotv1.VolumeSnapshotContent {
	return newContent(func(c *snapshotv1.VolumeSnapshotContent) {
		for _, f := range all {
			f(c)
		}
	})
}

func TestDecide(t *testing.T) {
	here := func(c *snapshotv1.VolumeSnapshotContent) {
		c.Annotations[csitest.Here.TopologyKey] = csitest.Node
	}
	deleted := func(c *snapshotv1.VolumeSnapshotContent) {
		here(c)
		c.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
		c.Annotations[annDeleting] = "yes"
	}
	inUse := func(c *snapshotv1.VolumeSnapshotContent) { delete(c.Annotations, annDeleting) }
	ready := func(c *snapshotv1.VolumeSnapshotContent) {
		c.Status = &snapshotv1.VolumeSnapshotContentStatus{
			SnapshotHandle: new(snapshot),
			ReadyToUse:     new(true),
		}
	}

	for _, c := range []struct {
		name    string
		content *snapshotv1.VolumeSnapshotContent
		remote  bool // the volume is not here
		want    action
	}{
		{"new", changed(), false, claim},
		{"new, elsewhere", changed(), true, ignore},
		{"claimed", changed(here), false, create},
		{"ready", changed(here, ready), false, ignore},
		{"made by a sidecar", changed(ready), false, claim},
		{"made by a sidecar, and the volume is gone", changed(ready), true, find},
		{"claimed by another node", changed(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Annotations[csitest.Here.TopologyKey] = "b"
		}), false, ignore},
		{"of another driver", changed(func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.Driver = "other"
		}), false, ignore},
		{"deleted", changed(deleted, ready), false, destroy},
		{"deleted before it was made", changed(deleted), false, destroy},
		{"deleted, retained", changed(deleted, func(c *snapshotv1.VolumeSnapshotContent) {
			c.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
		}), false, release},
		{"deleted, but its VolumeSnapshot is there", changed(deleted, inUse), false, ignore},
		{"deleted, and done with", changed(deleted, func(c *snapshotv1.VolumeSnapshotContent) {
			c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool { return f == finalizer })
		}), false, ignore},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := facts{local: csitest.Here, content: c.content, sourceHere: !c.remote}
			if got := decide(f); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// What the snapshot controller makes for the members of a group is neither made nor deleted here.
func TestDecideAboutSnapshotsOfGroups(t *testing.T) {
	member := func(c *snapshotv1.VolumeSnapshotContent) { c.Annotations[annGroup] = "group-1" }
	here := func(c *snapshotv1.VolumeSnapshotContent) {
		c.Annotations[csitest.Here.TopologyKey] = csitest.Node
	}
	made := func(c *snapshotv1.VolumeSnapshotContent) {
		c.Status = &snapshotv1.VolumeSnapshotContentStatus{
			SnapshotHandle: new(snapshot),
			ReadyToUse:     new(false),
		}
	}
	ready := func(c *snapshotv1.VolumeSnapshotContent) {
		made(c)
		c.Status.ReadyToUse = new(true)
		c.Status.VolumeGroupSnapshotHandle = new("group-1")
	}
	deleted := func(c *snapshotv1.VolumeSnapshotContent) {
		c.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
		c.Annotations[annDeleting] = "yes"
	}

	for _, c := range []struct {
		name    string
		content *snapshotv1.VolumeSnapshotContent
		want    action
	}{
		{"new", changed(member), claim},
		{"claimed", changed(member, here), ignore},
		{"made", changed(member, here, made), find},
		{"ready", changed(member, here, ready), ignore},
		{"deleted", changed(member, here, ready, deleted), release},
		{"deleted, and only the status says so", changed(here, ready, deleted), release},
	} {
		f := facts{local: csitest.Here, content: c.content, sourceHere: true}
		if got := decide(f); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
