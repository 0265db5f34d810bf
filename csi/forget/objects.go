package forget

import (
	"cmp"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
)

// protection is the finalizer by which the controller-manager keeps a volume as long as a claim is bound to
// it.
const protection = "kubernetes.io/pv-protection"

// installed are the groups that are not Kubernetes' own, in the versions that are known here.
var installed = []schema.GroupVersion{groupv1.SchemeGroupVersion, snapshotv1.SchemeGroupVersion}

// volumes are the PersistentVolumes. Their node is that of their affinity.
func volumes(g *guard) *kind[corev1.PersistentVolume] {
	nodeOf := func(pv *corev1.PersistentVolume) (string, bool) {
		return objects.NodeOf(pv, g.cfg.Driver, g.cfg.TopologyKey)
	}
	return newKind(kind[corev1.PersistentVolume]{
		guard:   g,
		name:    "PersistentVolume",
		version: corev1.SchemeGroupVersion.String(),
		objects: kube.Volumes(g.cfg.Client),
		own:     []string{objects.Finalizer, protection},
		lost:    "volume",
		of: func(pv *corev1.PersistentVolume) (kept, bool) {
			node, ok := nodeOf(pv)
			if !ok {
				return kept{}, false
			}

			user := userOf(pv.Spec.ClaimRef, "PersistentVolumeClaim", "v1")
			return kept{&pv.ObjectMeta, node, user, []string{pv.Spec.CSI.VolumeHandle}}, true
		},
	}, func(pv *corev1.PersistentVolume) {
		if _, ok := nodeOf(pv); !ok {
			pv.Spec = corev1.PersistentVolumeSpec{}
		}
		pv.ManagedFields, pv.Labels = nil, nil
	})
}

// snapshots are the VolumeSnapshotContents. Their node is that of the annotation by which its driver has
// taken them, or of their volume: nobody takes those that were made when the node was gone already.
func snapshots(g *guard) keeper {
	version := snapshotv1.SchemeGroupVersion.String()
	return newKind(kind[snapshotv1.VolumeSnapshotContent]{
		guard:   g,
		name:    "VolumeSnapshotContent",
		version: version,
		objects: objects.SnapshotContents(g.cfg.Client),
		own:     []string{objects.SnapshotFinalizer},
		lost:    "snapshot",
		of: func(c *snapshotv1.VolumeSnapshotContent) (kept, bool) {
			var sources []string
			if handle := c.Spec.Source.VolumeHandle; handle != nil {
				sources = []string{*handle}
			}
			user := userOf(&c.Spec.VolumeSnapshotRef, "VolumeSnapshot", version)
			return g.taken(&c.ObjectMeta, c.Spec.Driver, user, sources)
		},
	}, func(c *snapshotv1.VolumeSnapshotContent) { c.ManagedFields, c.Labels, c.Status = nil, nil, nil })
}

// groups are the VolumeGroupSnapshotContents, as snapshots.
func groups(g *guard) keeper {
	version := groupv1.SchemeGroupVersion.String()
	return newKind(kind[groupv1.VolumeGroupSnapshotContent]{
		guard:   g,
		name:    "VolumeGroupSnapshotContent",
		version: version,
		objects: objects.GroupSnapshotContents(g.cfg.Client),
		own:     []string{objects.GroupSnapshotFinalizer},
		lost:    "group snapshot",
		of: func(c *groupv1.VolumeGroupSnapshotContent) (kept, bool) {
			user := userOf(&c.Spec.VolumeGroupSnapshotRef, "VolumeGroupSnapshot", version)
			return g.taken(&c.ObjectMeta, c.Spec.Driver, user, c.Spec.Source.VolumeHandles)
		},
	}, func(c *groupv1.VolumeGroupSnapshotContent) { c.ManagedFields, c.Labels, c.Status = nil, nil, nil })
}

// taken is what there is to know of the content of a snapshot of volumes.
func (g *guard) taken(
	meta *metav1.ObjectMeta, driver string, user *corev1.ObjectReference, sources []string,
) (kept, bool) {
	k := kept{ObjectMeta: meta, node: meta.Annotations[g.cfg.TopologyKey], user: user}
	if k.node == "" {
		k.node, k.handles = g.homeOf(sources), sources
	}
	return k, k.node != "" && driver == g.cfg.Driver
}

// userOf completes a reference, whose kind need not be said; nil if it refers to nothing.
func userOf(ref *corev1.ObjectReference, kind, version string) *corev1.ObjectReference {
	if ref == nil || ref.Name == "" {
		return nil
	}
	user := *ref
	user.Kind, user.APIVersion = cmp.Or(user.Kind, kind), cmp.Or(user.APIVersion, version)
	return &user
}
