package objects

import (
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"

	"github.com/trivet-node/trivet/internal/kube"
)

// What keeps contents until the driver of their node has deleted what they stand for. The names are those of
// the snapshot controller, which puts them there.
const (
	SnapshotFinalizer      = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
	GroupSnapshotFinalizer = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"
)

// Snapshots are the VolumeSnapshots of the cluster. Their kinds are there where the snapshot controller of
// Kubernetes was installed; if not, calls are answered with Not Found.
func Snapshots(c *kube.Client) kube.Objects[snapshotv1.VolumeSnapshot] {
	return kube.Of[snapshotv1.VolumeSnapshot, snapshotv1.VolumeSnapshotList](
		c, snapshotv1.SchemeGroupVersion, "volumesnapshots")
}

// SnapshotContents are the VolumeSnapshotContents.
func SnapshotContents(c *kube.Client) kube.Objects[snapshotv1.VolumeSnapshotContent] {
	return kube.Of[snapshotv1.VolumeSnapshotContent, snapshotv1.VolumeSnapshotContentList](
		c, snapshotv1.SchemeGroupVersion, "volumesnapshotcontents")
}

// SnapshotClasses are the VolumeSnapshotClasses.
func SnapshotClasses(c *kube.Client) kube.Objects[snapshotv1.VolumeSnapshotClass] {
	return kube.Of[snapshotv1.VolumeSnapshotClass, snapshotv1.VolumeSnapshotClassList](
		c, snapshotv1.SchemeGroupVersion, "volumesnapshotclasses")
}

// GroupSnapshots are the VolumeGroupSnapshots; see Snapshots.
func GroupSnapshots(c *kube.Client) kube.Objects[groupv1.VolumeGroupSnapshot] {
	return kube.Of[groupv1.VolumeGroupSnapshot, groupv1.VolumeGroupSnapshotList](
		c, groupv1.SchemeGroupVersion, "volumegroupsnapshots")
}

// GroupSnapshotContents are the VolumeGroupSnapshotContents; see Snapshots.
func GroupSnapshotContents(c *kube.Client) kube.Objects[groupv1.VolumeGroupSnapshotContent] {
	return kube.Of[groupv1.VolumeGroupSnapshotContent, groupv1.VolumeGroupSnapshotContentList](
		c, groupv1.SchemeGroupVersion, "volumegroupsnapshotcontents")
}

// GroupSnapshotClasses are the VolumeGroupSnapshotClasses.
func GroupSnapshotClasses(c *kube.Client) kube.Objects[groupv1.VolumeGroupSnapshotClass] {
	return kube.Of[groupv1.VolumeGroupSnapshotClass, groupv1.VolumeGroupSnapshotClassList](
		c, groupv1.SchemeGroupVersion, "volumegroupsnapshotclasses")
}
