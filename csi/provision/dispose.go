package provision

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/csi/objects"
)

// disposal is what to do about a PersistentVolume.
type disposal string

const (
	keep    disposal = "keep"    // nothing
	protect disposal = "protect" // put our finalizer on: its object may be deleted before its claim
	destroy disposal = "destroy" // delete content and object
	release disposal = "release" // take our finalizer off: the content is retained
)

// dispose decides about a PersistentVolume. It is pure.
func dispose(local objects.Local, pv *corev1.PersistentVolume) disposal {
	if pv.Annotations[objects.ProvisionedBy] != local.Driver || !local.Holds(pv) {
		return keep
	}

	deleted, phase := pv.DeletionTimestamp != nil, pv.Status.Phase
	switch {
	case !hasFinalizer(pv) && deleted:
		// The content is deleted, the object is about to be.
		return keep
	case !hasFinalizer(pv) && phase == corev1.VolumeBound:
		return protect
	case pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		if deleted && phase != corev1.VolumeBound {
			return release
		}

		return keep

	case phase == corev1.VolumeReleased, phase == corev1.VolumeAvailable && deleted:
		return destroy
	}

	return keep
}

func hasFinalizer(pv *corev1.PersistentVolume) bool {
	return slices.Contains(pv.Finalizers, objects.Finalizer)
}
