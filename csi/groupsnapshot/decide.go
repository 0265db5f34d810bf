package groupsnapshot

import (
	"slices"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/trivet-node/trivet/csi/objects"
)

// What the snapshot controller, sidecars and this package agree upon.
const (
	// annCreating is on a content while its group may be made and is not known.
	annCreating = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created"

	// annDeleting is on a content whose VolumeGroupSnapshot is being deleted.
	annDeleting = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted"

	// finalizer keeps a content until its group is deleted.
	finalizer = objects.GroupSnapshotFinalizer
)

// action is what to do about a content.
type action string

const (
	ignore  action = "ignore"  // not ours, not yet or not any more
	claim   action = "claim"   // write down that the group is on this node
	create  action = "create"  // make the group
	find    action = "find"    // it was made by somebody: look whether it is here
	ask     action = "ask"     // it was deleted: whether its VolumeGroupSnapshot is there is to be asked
	destroy action = "destroy" // delete the group
	release action = "release" // let the object go; the group is retained
)

// facts are all that the decision about a content rests on.
type facts struct {
	local     objects.Local
	content   *groupv1.VolumeGroupSnapshotContent
	firstHere bool // the first of the volumes that it is of is on this node
	orphan    bool // the API server says that its VolumeGroupSnapshot is gone
}

// decide says what one node does about a content. It is pure.
func decide(f facts) action {
	c := f.content
	if c.Spec.Driver != f.local.Driver {
		return ignore
	}

	// The node is written down once: the volumes may be gone when the group is deleted. That of the first
	// volume also says so when the others are elsewhere.
	switch node := c.Annotations[f.local.TopologyKey]; {
	case node == f.local.Node:
	case node != "":
		return ignore
	case f.firstHere:
		return claim
	case handleIn(c) == "":
		return ignore
	default:
		return find
	}

	_, unfinished := c.Annotations[annCreating]
	switch {
	case c.DeletionTimestamp != nil:
		return decideDeleted(c, f.orphan)
	case unfinished || !isReady(c):
		if c.Spec.Source.GroupSnapshotHandles != nil {
			return find
		}
		return create
	}

	return ignore
}

// decideDeleted is decide for a content that somebody has deleted. A VolumeGroupSnapshot that is still there
// keeps the group. The snapshot controller says that it is not by an annotation; of one that was deleted
// before the controller had put its finalizer on it, it says nothing (ADR 0943).
func decideDeleted(c *groupv1.VolumeGroupSnapshotContent, orphan bool) action {
	unbound := c.Spec.Source.GroupSnapshotHandles != nil && c.Spec.VolumeGroupSnapshotRef.UID == ""
	_, deleting := c.Annotations[annDeleting]
	switch {
	case !slices.Contains(c.Finalizers, finalizer):
		return ignore
	case !unbound && !deleting && !orphan:
		return ask
	case c.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete:
		return destroy
	}
	return release
}

func isReady(c *groupv1.VolumeGroupSnapshotContent) bool {
	return c.Status != nil && c.Status.VolumeGroupSnapshotHandle != nil &&
		c.Status.ReadyToUse != nil && *c.Status.ReadyToUse
}

// handleIn returns the ID of the group of a content, "" while it is not known.
func handleIn(c *groupv1.VolumeGroupSnapshotContent) string {
	switch {
	case c.Status != nil && c.Status.VolumeGroupSnapshotHandle != nil:
		return *c.Status.VolumeGroupSnapshotHandle
	case c.Spec.Source.GroupSnapshotHandles != nil:
		return c.Spec.Source.GroupSnapshotHandles.VolumeGroupSnapshotHandle
	}
	return ""
}

// snapshotsIn returns the IDs of the snapshots of the group of a content, as far as they are known.
func snapshotsIn(c *groupv1.VolumeGroupSnapshotContent) []string {
	if c.Spec.Source.GroupSnapshotHandles != nil {
		return c.Spec.Source.GroupSnapshotHandles.VolumeSnapshotHandles
	}

	var ids []string
	if c.Status != nil {
		for _, s := range c.Status.VolumeSnapshotInfoList {
			ids = append(ids, s.SnapshotHandle)
		}
	}
	return ids
}
