package inventory

import v1 "k8s.io/api/core/v1"

// Plugin returns kubelet's name for what mounts a volume of a pod. pv is the persistent volume of its claim,
// nil if it has none or the claim has not been read: most claims are those of CSI drivers.
func Plugin(v *v1.Volume, pv *v1.PersistentVolume) string {
	src := &v.VolumeSource
	switch {
	case src.EmptyDir != nil:
		return "kubernetes.io/empty-dir"
	case src.HostPath != nil:
		return hostPath
	case src.ConfigMap != nil:
		return "kubernetes.io/configmap"
	case src.Secret != nil:
		return "kubernetes.io/secret"
	case src.DownwardAPI != nil:
		return "kubernetes.io/downward-api"
	case src.Projected != nil:
		return "kubernetes.io/projected"

	case src.NFS != nil:
		return nfs
	case src.Image != nil:
		return "kubernetes.io/image"
	case src.CSI != nil:
		return csi + ":" + src.CSI.Driver
	case src.PersistentVolumeClaim != nil, src.Ephemeral != nil:
		return persistent(pv)
	}
	return unknown
}

// The names that volumes of pods and persistent volumes share.
const (
	hostPath = "kubernetes.io/host-path"
	nfs      = "kubernetes.io/nfs"
	csi      = "kubernetes.io/csi"
	unknown  = "N/A"
)

// persistent returns the name of what mounts a persistent volume.
func persistent(pv *v1.PersistentVolume) string {
	if pv == nil {
		return csi
	}

	src := &pv.Spec.PersistentVolumeSource
	switch {
	case src.CSI != nil:
		return csi + ":" + src.CSI.Driver
	case src.Local != nil:
		return "kubernetes.io/local-volume"
	case src.HostPath != nil:
		return hostPath
	case src.NFS != nil:
		return nfs
	}
	return unknown
}
