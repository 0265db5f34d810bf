// Package storage has the kinds of the API group storage.k8s.io.
package storage

import (
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/internal/kube"
)

// Classes are the StorageClasses.
func Classes(c *kube.Client) kube.Objects[storagev1.StorageClass] {
	return kube.Of[storagev1.StorageClass, storagev1.StorageClassList](
		c, storagev1.SchemeGroupVersion, "storageclasses")
}

// AttributesClasses are the VolumeAttributesClasses, which Kubernetes has since 1.34.
func AttributesClasses(c *kube.Client) kube.Objects[storagev1.VolumeAttributesClass] {
	return kube.Of[storagev1.VolumeAttributesClass, storagev1.VolumeAttributesClassList](
		c, storagev1.SchemeGroupVersion, "volumeattributesclasses")
}

// CSINodes are the CSINodes.
func CSINodes(c *kube.Client) kube.Objects[storagev1.CSINode] {
	return kube.Of[storagev1.CSINode, storagev1.CSINodeList](c, storagev1.SchemeGroupVersion, "csinodes")
}

// CSIDrivers are the CSIDrivers.
func CSIDrivers(c *kube.Client) kube.Objects[storagev1.CSIDriver] {
	return kube.Of[storagev1.CSIDriver, storagev1.CSIDriverList](
		c, storagev1.SchemeGroupVersion, "csidrivers")
}

// Capacities are the CSIStorageCapacities.
func Capacities(c *kube.Client) kube.Objects[storagev1.CSIStorageCapacity] {
	return kube.Of[storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](
		c, storagev1.SchemeGroupVersion, "csistoragecapacities")
}

// Attachments are the VolumeAttachments.
func Attachments(c *kube.Client) kube.Objects[storagev1.VolumeAttachment] {
	return kube.Of[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](
		c, storagev1.SchemeGroupVersion, "volumeattachments")
}
