package groupsnapshot

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

const (
	content = "groupsnapcontent-1"
	group   = "groupsnapshot-uid-1"
)

var sources = []string{"vol-a", "vol-b"}

// newContent is what the snapshot controller makes of a VolumeGroupSnapshot.
func newContent(changes ...func(*groupv1.VolumeGroupSnapshotContent)) *groupv1.VolumeGroupSnapshotContent {
	c := &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{
			Name:        content,
			UID:         "uid-content",
			Annotations: map[string]string{},
			Finalizers:  []string{finalizer},
		},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			Driver:         csitest.Here.Driver,
			DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
			VolumeGroupSnapshotRef: corev1.ObjectReference{
				Namespace: csitest.Namespace,
				Name:      "backup",
				UID:       "uid-1",
			},
			Source: groupv1.VolumeGroupSnapshotContentSource{VolumeHandles: sources},
		},
	}
	for _, change := range changes {
		change(c)
	}
	return c
}

// cluster is a csitest.Cluster with two volumes on its node.
type cluster struct{ *csitest.Cluster }

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{csitest.NewCluster(t)}
	for _, source := range sources {
		c.putVolume(source, csitest.Here)
	}
	return c
}

func (c *cluster) putVolume(handle string, on objects.Local) {
	c.T.Helper()
	c.Put(&corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-" + handle},
		Spec: corev1.PersistentVolumeSpec{
			NodeAffinity: on.Affinity(),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: on.Driver, VolumeHandle: handle},
			},
		},
	})
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
func (c *cluster) content() *groupv1.VolumeGroupSnapshotContent {
	c.T.Helper()
	const kind = "volumegroupsnapshotcontents"
	return kubetest.Get[groupv1.VolumeGroupSnapshotContent](c.Server, kind, "", content)
}

func (c *cluster) isReady() bool {
	now := c.content()
	_, creating := now.Annotations[annCreating]
	return isReady(now) && !creating
}

// delete marks the content as the snapshot controller does, and deletes it.
func (c *cluster) delete() {
	c.T.Helper()
	now := c.content()
	now.Annotations[annDeleting] = "yes"
	now.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
	c.Put(now)
}

func TestContentGetsItsGroupAndGivesItBack(t *testing.T) {
	c := newCluster(t)
	c.Put(newContent())
	defer c.run()()

	c.Eventually("the group is ready", c.isReady)
	now := c.content()
	list := now.Status.VolumeSnapshotInfoList
	if *now.Status.VolumeGroupSnapshotHandle != group || len(list) != 2 ||
		list[0].VolumeHandle != "vol-a" || list[0].SnapshotHandle != "snap-of-vol-a" ||
		*list[0].RestoreSize != 1<<30 || *list[0].CreationTime != csitest.Born.UnixNano() ||
		!now.Status.CreationTime.Time.Equal(csitest.Born) ||
		now.Annotations[csitest.Here.TopologyKey] != csitest.Node {
		t.Errorf("content %+v", now)
	}
	if got := c.CSI.Groups()[group]; !slices.Equal(got, sources) {
		t.Errorf("the group is of %q", got)
	}

	// The volumes may go before their snapshots.
	for _, source := range sources {
		c.Remove("persistentvolumes", "", "pv-"+source)
	}
	c.delete()
	c.Eventually("group and object are gone",
		func() bool { return c.content() == nil && len(c.CSI.Groups()) == 0 })
}

func TestGroupIsMadeAfterItFailed(t *testing.T) {
	c := newCluster(t)
	c.CSI.FailOn("CreateVolumeGroupSnapshot", status.Error(codes.ResourceExhausted, "full"))
	c.Put(newContent())
	defer c.run()()

	c.Eventually("the content says why", func() bool {
		now := c.content()
		return now.Status != nil && now.Status.Error != nil && *now.Status.Error.Message == "full"
	})
	c.Eventually("the event", func() bool { return c.HasEvent("GroupSnapshotCreationFailed") })
	c.CSI.FailOn("CreateVolumeGroupSnapshot", nil)
	c.Eventually("the group is ready", c.isReady)
	if now := c.content(); now.Status.Error != nil {
		t.Errorf("it still has failed: %v", now.Status.Error)
	}
}

// The driver knows the volumes of its own node only.
func TestGroupOfTwoNodesIsRefusedByName(t *testing.T) {
	c := newCluster(t)
	other := csitest.Here
	other.Node = "b"
	c.putVolume("vol-far", other)
	c.CSI.FailOn("CreateVolumeGroupSnapshot", status.Error(codes.NotFound, "no such volume"))
	c.Put(newContent(func(c *groupv1.VolumeGroupSnapshotContent) {
		c.Spec.Source.VolumeHandles = []string{"vol-a", "vol-far"}
	}))
	defer c.run()()
	c.Eventually("the content names the volume", func() bool {
		now := c.content()
		return now.Status != nil && now.Status.Error != nil &&
			strings.Contains(*now.Status.Error.Message, "vol-far are not on node a")
	})
}

// A group that was made and never became known is deleted with its content.
func TestGroupThatNeverBecameKnownIsDeleted(t *testing.T) {
	c := newCluster(t)
	c.CSI.FailOn("CreateVolumeGroupSnapshot after", status.Error(codes.Unavailable, "lost"))
	c.Put(newContent())
	stop := c.run()
	c.Eventually("the call", func() bool { return len(c.CSI.Groups()) == 1 })
	stop()

	c.delete()
	c.CSI.FailOn("CreateVolumeGroupSnapshot after", nil)
	defer c.run()()
	c.Eventually("group and object are gone",
		func() bool { return c.content() == nil && len(c.CSI.Groups()) == 0 })
}

// deleteUnmarked deletes the content as somebody does who knows nothing of its VolumeGroupSnapshot.
func (c *cluster) deleteUnmarked() {
	c.T.Helper()
	now := c.content()
	now.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
	c.Put(now)
}

func (c *cluster) putOwner(uid types.UID) {
	c.T.Helper()
	c.Put(&groupv1.VolumeGroupSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: csitest.Namespace, Name: "backup", UID: uid},
	})
}

// The snapshot controller marks nothing when a VolumeGroupSnapshot was deleted before it had its finalizer.
func TestGroupGoesWithItsContentWhenNobodyIsThereToMarkIt(t *testing.T) {
	for name, owner := range map[string]types.UID{"gone": "", "another of that name": "uid-2"} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t)
			c.Put(newContent())
			if owner != "" {
				c.putOwner(owner)
			}
			defer c.run()()
			c.Eventually("the group is ready", c.isReady)
			c.deleteUnmarked()
			c.Eventually("group and object are gone",
				func() bool { return c.content() == nil && len(c.CSI.Groups()) == 0 })
		})
	}
}

func TestVolumeGroupSnapshotThatIsThereKeepsItsGroup(t *testing.T) {
	c := newCluster(t)
	c.Put(newContent())
	c.putOwner("uid-1")
	defer c.run()()
	c.Eventually("the group is ready", c.isReady)
	c.deleteUnmarked()
	c.Eventually("it is asked for", func() bool {
		return slices.Contains(c.Calls(), "get volumegroupsnapshots "+csitest.Namespace+"/backup")
	})

	// It looks again when the owner, or the content, has changed.
	if c.content() == nil || len(c.CSI.Groups()) != 1 {
		t.Error("the group or its content is gone")
	}
	c.FailOn("get volumegroupsnapshots", 1, apierrors.NewInternalError(errors.New("no leader")))
	c.Remove("volumegroupsnapshots", csitest.Namespace, "backup")
	now := c.content()
	now.Annotations["example.org/touched"] = "yes"
	c.Put(now)
	c.Eventually("group and object are gone",
		func() bool { return c.content() == nil && len(c.CSI.Groups()) == 0 })
}

// What somebody else has made is taken over by the node that has it, and retained if that is wanted.
func TestGroupThatIsHereIsFoundAndRetained(t *testing.T) {
	c := newCluster(t)
	c.Put(newContent())
	stop := c.run()
	c.Eventually("the group is ready", c.isReady)
	stop()

	c.Remove("volumegroupsnapshotcontents", "", content)
	c.Put(newContent(func(c *groupv1.VolumeGroupSnapshotContent) {
		c.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
		c.Spec.Source = groupv1.VolumeGroupSnapshotContentSource{
			GroupSnapshotHandles: &groupv1.GroupSnapshotHandles{
				VolumeGroupSnapshotHandle: group,
				VolumeSnapshotHandles:     []string{"snap-of-vol-a", "snap-of-vol-b"},
			},
		}
	}))
	defer c.run()()
	c.Eventually("it is ready", c.isReady)
	c.delete()
	c.Eventually("the object is gone", func() bool { return c.content() == nil })
	if len(c.CSI.Groups()) != 1 {
		t.Error("the group is gone, too")
	}
}

func TestDecide(t *testing.T) {
	here := func(c *groupv1.VolumeGroupSnapshotContent) {
		c.Annotations[csitest.Here.TopologyKey] = csitest.Node
	}
	deleted := func(c *groupv1.VolumeGroupSnapshotContent) {
		here(c)
		c.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
		c.Annotations[annDeleting] = "yes"
	}
	retained := func(c *groupv1.VolumeGroupSnapshotContent) {
		c.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
	}
	ready := func(c *groupv1.VolumeGroupSnapshotContent) {
		c.Status = &groupv1.VolumeGroupSnapshotContentStatus{
			VolumeGroupSnapshotHandle: new(group),
			ReadyToUse:                new(true),
		}
	}

	for _, c := range []struct {
		name    string
		content *groupv1.VolumeGroupSnapshotContent
		remote  bool // the first volume is not here
		want    action
	}{
		{"new", newContent(), false, claim},
		{"new, elsewhere", newContent(), true, ignore},
		{"claimed", newContent(here), false, create},
		{"ready", newContent(here, ready), false, ignore},
		{"made by a sidecar", newContent(ready), false, claim},
		{"made by a sidecar, and the volumes are gone", newContent(ready), true, find},
		{"claimed by another node", newContent(func(c *groupv1.VolumeGroupSnapshotContent) {
			c.Annotations[csitest.Here.TopologyKey] = "b"
		}), false, ignore},
		{"of another driver", newContent(func(c *groupv1.VolumeGroupSnapshotContent) {
			c.Spec.Driver = "other"
		}), false, ignore},
		{"deleted", newContent(deleted, ready), false, destroy},
		{"deleted before it was made", newContent(deleted), false, destroy},
		{"deleted, retained", newContent(deleted, retained), false, release},
		{"deleted, and done with", newContent(deleted, func(c *groupv1.VolumeGroupSnapshotContent) {
			c.Finalizers = nil
		}), false, ignore},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := facts{local: csitest.Here, content: c.content, firstHere: !c.remote}
			if got := decide(f); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// unmarkedContent was deleted, on this node, and the snapshot controller has not marked it.
func unmarkedContent(policy snapshotv1.DeletionPolicy) *groupv1.VolumeGroupSnapshotContent {
	return newContent(func(c *groupv1.VolumeGroupSnapshotContent) {
		c.Annotations[csitest.Here.TopologyKey] = csitest.Node
		c.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
		c.Spec.DeletionPolicy = policy
	})
}

func TestDecideOnAnOrphan(t *testing.T) {
	for want, policy := range map[action]snapshotv1.DeletionPolicy{
		destroy: snapshotv1.VolumeSnapshotContentDelete,
		release: snapshotv1.VolumeSnapshotContentRetain,
	} {
		f := facts{local: csitest.Here, content: unmarkedContent(policy)}
		if got := decide(f); got != ask {
			t.Errorf("policy %s: %s, want %s", policy, got, ask)
		}
		f.orphan = true
		if got := decide(f); got != want {
			t.Errorf("policy %s, and its VolumeGroupSnapshot is gone: %s, want %s", policy, got, want)
		}
	}
}
