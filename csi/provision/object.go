package provision

import (
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/objects"
)

// volumeName is the name of a claim's PersistentVolume and of its CSI volume.
func volumeName(c *corev1.PersistentVolumeClaim) string { return "pvc-" + string(c.UID) }

// createRequest translates a claim.
func createRequest(f facts) (*csi.CreateVolumeRequest, error) {
	c, class := f.claim, f.class
	size := objects.Requested(c)
	if size.Sign() <= 0 {
		return nil, fmt.Errorf("claim asks for %s of storage", size.String())
	}

	limit := c.Spec.Resources.Limits[corev1.ResourceStorage]
	here := []*csi.Topology{f.local.Topology()}
	req := &csi.CreateVolumeRequest{
		Name: volumeName(c),
		CapacityRange: &csi.CapacityRange{
			RequiredBytes: size.Value(),
			LimitBytes:    limit.Value(),
		},
		Parameters:                objects.Parameters(class),
		MutableParameters:         f.attributes,
		AccessibilityRequirements: &csi.TopologyRequirement{Requisite: here, Preferred: here},
	}

	req.Parameters[objects.ParameterPrefix+"pvc/name"] = c.Name
	req.Parameters[objects.ParameterPrefix+"pvc/namespace"] = c.Namespace
	req.Parameters[objects.ParameterPrefix+"pv/name"] = volumeName(c)
	for _, access := range c.Spec.AccessModes {
		capability := objects.Capability(class, access, c.Spec.VolumeMode)
		req.VolumeCapabilities = append(req.VolumeCapabilities, capability)
	}

	return req, nil
}

// persistentVolume is the object for a volume that was made for a claim. It names the claim, so that nobody
// else can get it.
func persistentVolume(f facts, v *csi.Volume) *corev1.PersistentVolume {
	c, class := f.claim, f.class
	size := *resource.NewQuantity(v.GetCapacityBytes(), resource.BinarySI)
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        volumeName(c),
			Annotations: map[string]string{objects.ProvisionedBy: f.local.Driver},
			Finalizers:  []string{objects.Finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: size},
			AccessModes:                   writingFirst(c.Spec.AccessModes),
			VolumeMode:                    c.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: policyOf(class),
			StorageClassName:              className(c),
			MountOptions:                  class.MountOptions,
			NodeAffinity:                  objects.Affinity(v.GetAccessibleTopology()...),
			ClaimRef: &corev1.ObjectReference{
				Kind:            "PersistentVolumeClaim",
				APIVersion:      "v1",
				Namespace:       c.Namespace,
				Name:            c.Name,
				UID:             c.UID,
				ResourceVersion: c.ResourceVersion,
			},
		},
	}

	if name := objects.WantedAttributes(c); name != "" {
		pv.Spec.VolumeAttributesClassName = &name
	}

	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{
		Driver:             f.local.Driver,
		VolumeHandle:       v.GetVolumeId(),
		VolumeAttributes:   v.GetVolumeContext(),
		NodeStageSecretRef: f.secret,
	}
	if !isBlock(c) {
		pv.Spec.CSI.FSType = class.Parameters[objects.FSType]
	}

	return pv
}

func isBlock(c *corev1.PersistentVolumeClaim) bool {
	return c.Spec.VolumeMode != nil && *c.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// writes reports whether somebody writes to a volume in a mode.
func writes(mode corev1.PersistentVolumeAccessMode) bool { return mode != corev1.ReadOnlyMany }

// writingFirst returns access modes in the order of a PersistentVolume: kubelet has the volume used in the
// first of them, which keeps nobody from writing who may.
func writingFirst(modes []corev1.PersistentVolumeAccessMode) []corev1.PersistentVolumeAccessMode {
	sorted := slices.Clone(modes)
	slices.SortStableFunc(sorted, func(a, b corev1.PersistentVolumeAccessMode) int {
		switch {
		case writes(a) == writes(b):
			return 0
		case writes(a):
			return -1
		}
		return 1
	})
	return sorted
}

func policyOf(class *storagev1.StorageClass) corev1.PersistentVolumeReclaimPolicy {
	if class.ReclaimPolicy == nil {
		return corev1.PersistentVolumeReclaimDelete
	}
	return *class.ReclaimPolicy
}
