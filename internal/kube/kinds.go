package kube

import corev1 "k8s.io/api/core/v1"

// The kinds of the core group. Those of other groups are in packages below or are made, with Of, where they
// are used: to import a group of the API links all of its types into a program, some 100 KB each.

// Nodes are the Nodes of the cluster.
func Nodes(c *Client) Objects[corev1.Node] {
	return Of[corev1.Node, corev1.NodeList](c, corev1.SchemeGroupVersion, "nodes")
}

// Pods are the Pods.
func Pods(c *Client) Objects[corev1.Pod] {
	return Of[corev1.Pod, corev1.PodList](c, corev1.SchemeGroupVersion, "pods")
}

// Services are the Services.
func Services(c *Client) Objects[corev1.Service] {
	return Of[corev1.Service, corev1.ServiceList](c, corev1.SchemeGroupVersion, "services")
}

// ConfigMaps are the ConfigMaps.
func ConfigMaps(c *Client) Objects[corev1.ConfigMap] {
	return Of[corev1.ConfigMap, corev1.ConfigMapList](c, corev1.SchemeGroupVersion, "configmaps")
}

// Secrets are the Secrets.
func Secrets(c *Client) Objects[corev1.Secret] {
	return Of[corev1.Secret, corev1.SecretList](c, corev1.SchemeGroupVersion, "secrets")
}

// Events are the Events of the core group.
func Events(c *Client) Objects[corev1.Event] {
	return Of[corev1.Event, corev1.EventList](c, corev1.SchemeGroupVersion, "events")
}

// Claims are the PersistentVolumeClaims.
func Claims(c *Client) Objects[corev1.PersistentVolumeClaim] {
	return Of[corev1.PersistentVolumeClaim, corev1.PersistentVolumeClaimList](
		c, corev1.SchemeGroupVersion, "persistentvolumeclaims")
}

// Volumes are the PersistentVolumes.
func Volumes(c *Client) Objects[corev1.PersistentVolume] {
	return Of[corev1.PersistentVolume, corev1.PersistentVolumeList](
		c, corev1.SchemeGroupVersion, "persistentvolumes")
}
