package snapshot

import (
	"slices"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/trivet-node/trivet/csi/objects"
)

// What the snapshot controller, sidecars and this package agree upon.
const (
	// annCreating is on a content while its snapshot may be made and is not known.
	annCreating = "snapshot.storage.kubernetes.io/volumesnapshot-being-created"

	// annDeleting is on a content whose VolumeSnapshot is being deleted.
	annDeleting = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"

	// annGroup is on a content whose snapshot was made, and is deleted, with others (csi/groupsnapshot). The
	// snapshot controller writes into the status which it is.
	annGroup = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"

	// finalizer keeps a content until its snapshot is deleted.
	finalizer = objects.SnapshotFinalizer
)

// action is what to do about a content.
type action string

const (
	ignore  action = "ignore"  // not ours, not yet or not any more
	claim   action = "claim"   // write down that the snapshot is on this node
	create  action = "create"  // make the snapshot
	find    action = "find"    // it was made by somebody: look whether it is here
	destroy action = "destroy" // delete the snapshot
	release action = "release" // let the object go; the snapshot is retained
)

// facts are all that the decision about a content rests on.
type facts struct {
	local      objects.Local
	content    *snapshotv1.VolumeSnapshotContent
	sourceHere bool // the volume that it is of is on this node
}

// decide says what one node does about a content. It is pure.
func decide(f facts) action {
	c := f.content
	if c.Spec.Driver != f.local.Driver {
		return ignore
	}

	// The node is written down once: the volume may be gone when the snapshot is deleted.
	switch node := c.Annotations[f.local.TopologyKey]; {
	case node == f.local.Node:
	case node != "":
		return ignore
	case f.sourceHere:
		return claim
	case handleIn(c) == "":
		return ignore
	default:
		return find
	}

	switch {
	case c.DeletionTimestamp != nil:
		return decideDeleted(c)
	case c.Status == nil || c.Status.SnapshotHandle == nil || c.Status.ReadyToUse == nil ||
		!*c.Status.ReadyToUse || hasAnnotation(c, annCreating):
		return decideUnready(c)
	}

	return ignore
}

func decideUnready(c *snapshotv1.VolumeSnapshotContent) action {
	switch {
	case isMember(c) && handleIn(c) == "":
		return ignore
	case isMember(c), c.Spec.Source.VolumeHandle == nil:
		return find
	}
	return create
}

// decideDeleted is decide for a content that somebody has deleted. A VolumeSnapshot that is still there keeps
// the snapshot.
func decideDeleted(c *snapshotv1.VolumeSnapshotContent) action {
	unbound := c.Spec.Source.SnapshotHandle != nil && c.Spec.VolumeSnapshotRef.UID == ""
	switch {
	case !slices.Contains(c.Finalizers, finalizer):
		return ignore
	case !unbound && !hasAnnotation(c, annDeleting):
		return ignore
	case isMember(c):
		return release
	case c.Spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentDelete:
		return destroy
	}
	return release
}

// handleIn returns the ID of the snapshot of a content, "" while it is not known.
func handleIn(c *snapshotv1.VolumeSnapshotContent) string {
	switch {
	case c.Status != nil && c.Status.SnapshotHandle != nil:
		return *c.Status.SnapshotHandle
	case c.Spec.Source.SnapshotHandle != nil:
		return *c.Spec.Source.SnapshotHandle
	}
	return ""
}

// isMember reports whether the snapshot of a content belongs to a group.
func isMember(c *snapshotv1.VolumeSnapshotContent) bool {
	return hasAnnotation(c, annGroup) || c.Status != nil && c.Status.VolumeGroupSnapshotHandle != nil
}

func hasAnnotation(c *snapshotv1.VolumeSnapshotContent, key string) bool {
	_, ok := c.Annotations[key]
	return ok
}
