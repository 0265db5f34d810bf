package kube

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// Each kind is a function and not a field of Client, so that a program has only those that it names.

// Nodes are the Nodes of the cluster.
func Nodes(c *Client) Objects[corev1.Node] {
	return kind[corev1.Node, corev1.NodeList](c, corev1.SchemeGroupVersion, "nodes")
}

// Pods are the Pods.
func Pods(c *Client) Objects[corev1.Pod] {
	return kind[corev1.Pod, corev1.PodList](c, corev1.SchemeGroupVersion, "pods")
}

// Services are the Services.
func Services(c *Client) Objects[corev1.Service] {
	return kind[corev1.Service, corev1.ServiceList](c, corev1.SchemeGroupVersion, "services")
}

// ConfigMaps are the ConfigMaps.
func ConfigMaps(c *Client) Objects[corev1.ConfigMap] {
	return kind[corev1.ConfigMap, corev1.ConfigMapList](c, corev1.SchemeGroupVersion, "configmaps")
}

// Secrets are the Secrets.
func Secrets(c *Client) Objects[corev1.Secret] {
	return kind[corev1.Secret, corev1.SecretList](c, corev1.SchemeGroupVersion, "secrets")
}

// Events are the Events of the core group.
func Events(c *Client) Objects[corev1.Event] {
	return kind[corev1.Event, corev1.EventList](c, corev1.SchemeGroupVersion, "events")
}

// Claims are the PersistentVolumeClaims.
func Claims(c *Client) Objects[corev1.PersistentVolumeClaim] {
	return kind[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](
		c, corev1.SchemeGroupVersion, "persistentvolumeclaims")
}

// Volumes are the PersistentVolumes.
func Volumes(c *Client) Objects[corev1.PersistentVolume] {
	return kind[corev1.PersistentVolume, corev1.PersistentVolumeList](
		c, corev1.SchemeGroupVersion, "persistentvolumes")
}

// StorageClasses are the StorageClasses.
func StorageClasses(c *Client) Objects[storagev1.StorageClass] {
	return kind[storagev1.StorageClass, storagev1.StorageClassList](
		c, storagev1.SchemeGroupVersion, "storageclasses")
}

// CSINodes are the CSINodes.
func CSINodes(c *Client) Objects[storagev1.CSINode] {
	return kind[storagev1.CSINode, storagev1.CSINodeList](c, storagev1.SchemeGroupVersion, "csinodes")
}

// CSIDrivers are the CSIDrivers.
func CSIDrivers(c *Client) Objects[storagev1.CSIDriver] {
	return kind[storagev1.CSIDriver, storagev1.CSIDriverList](c, storagev1.SchemeGroupVersion, "csidrivers")
}

// StorageCapacities are the CSIStorageCapacities.
func StorageCapacities(c *Client) Objects[storagev1.CSIStorageCapacity] {
	return kind[storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](
		c, storagev1.SchemeGroupVersion, "csistoragecapacities")
}

// VolumeAttachments are the VolumeAttachments.
func VolumeAttachments(c *Client) Objects[storagev1.VolumeAttachment] {
	return kind[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](
		c, storagev1.SchemeGroupVersion, "volumeattachments")
}

// RuntimeClasses are the RuntimeClasses.
func RuntimeClasses(c *Client) Objects[nodev1.RuntimeClass] {
	return kind[nodev1.RuntimeClass, nodev1.RuntimeClassList](
		c, nodev1.SchemeGroupVersion, "runtimeclasses")
}

// Leases are the Leases.
func Leases(c *Client) Objects[coordinationv1.Lease] {
	return kind[coordinationv1.Lease, coordinationv1.LeaseList](
		c, coordinationv1.SchemeGroupVersion, "leases")
}

// CertificateRequests are the CertificateSigningRequests.
func CertificateRequests(c *Client) Objects[certificatesv1.CertificateSigningRequest] {
	return kind[certificatesv1.CertificateSigningRequest, certificatesv1.CertificateSigningRequestList](
		c, certificatesv1.SchemeGroupVersion, "certificatesigningrequests")
}

// TrustBundles are the ClusterTrustBundles.
func TrustBundles(c *Client) Objects[certificatesv1.ClusterTrustBundle] {
	return kind[certificatesv1.ClusterTrustBundle, certificatesv1.ClusterTrustBundleList](
		c, certificatesv1.SchemeGroupVersion, "clustertrustbundles")
}

// ServiceCIDRs are the networks of Services. The API has them since Kubernetes 1.33.
func ServiceCIDRs(c *Client) Objects[networkingv1.ServiceCIDR] {
	return kind[networkingv1.ServiceCIDR, networkingv1.ServiceCIDRList](
		c, networkingv1.SchemeGroupVersion, "servicecidrs")
}
