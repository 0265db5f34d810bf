package provision

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	paramPrefix = "csi.storage.k8s.io/"
	paramFSType = paramPrefix + "fstype"
)

// volumeName is the name of a claim's PersistentVolume and of its CSI volume.
func volumeName(c *corev1.PersistentVolumeClaim) string { return "pvc-" + string(c.UID) }

// createRequest translates a claim.
func createRequest(f facts) (*csi.CreateVolumeRequest, error) {
	c, class := f.claim, f.class
	size := c.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Sign() <= 0 {
		return nil, fmt.Errorf("claim asks for %s of storage", size.String())
	}

	limit := c.Spec.Resources.Limits[corev1.ResourceStorage]
	here := &csi.Topology{Segments: map[string]string{f.topologyKey: f.node}}
	req := &csi.CreateVolumeRequest{
		Name:          volumeName(c),
		CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value(), LimitBytes: limit.Value()},
		Parameters:    ownParameters(class),
		AccessibilityRequirements: &csi.TopologyRequirement{
			Requisite: []*csi.Topology{here},
			Preferred: []*csi.Topology{here},
		},
	}

	for what, name := range map[string]string{
		"pvc/name":      c.Name,
		"pvc/namespace": c.Namespace,
		"pv/name":       volumeName(c),
	} {
		req.Parameters[paramPrefix+what] = name
	}

	for _, mode := range c.Spec.AccessModes {
		capability, err := toCapability(c, class, mode)
		if err != nil {
			return nil, err
		}

		req.VolumeCapabilities = append(req.VolumeCapabilities, capability)
	}

	return req, nil
}

var accessModes = map[corev1.PersistentVolumeAccessMode]csi.VolumeCapability_AccessMode_Mode{
	corev1.ReadWriteOnce:    csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	corev1.ReadWriteOncePod: csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	corev1.ReadOnlyMany:     csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	corev1.ReadWriteMany:    csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

func toCapability(
	c *corev1.PersistentVolumeClaim,
	class *storagev1.StorageClass,
	mode corev1.PersistentVolumeAccessMode,
) (*csi.VolumeCapability, error) {
	csiMode, ok := accessModes[mode]
	if !ok {
		return nil, fmt.Errorf("unknown access mode %s", mode)
	}
	capability := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: csiMode}}
	if c.Spec.VolumeMode != nil && *c.Spec.VolumeMode == corev1.PersistentVolumeBlock {
		capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return capability, nil
	}
	capability.AccessType = mountOf(class)
	return capability, nil
}

func mountOf(class *storagev1.StorageClass) *csi.VolumeCapability_Mount {
	return &csi.VolumeCapability_Mount{
		Mount: &csi.VolumeCapability_MountVolume{
			FsType:     class.Parameters[paramFSType],
			MountFlags: class.MountOptions,
		},
	}
}

// persistentVolume is the object for a volume that was made for a claim. It names the claim, so nobody else
// can get it.
func persistentVolume(f facts, v *csi.Volume) *corev1.PersistentVolume {
	c, class := f.claim, f.class
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        volumeName(c),
			Annotations: map[string]string{annProvisionedBy: f.driver},
			Finalizers:  []string{finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{
				corev1.ResourceStorage: *resource.NewQuantity(v.GetCapacityBytes(), resource.BinarySI),
			},
			AccessModes:                   c.Spec.AccessModes,
			VolumeMode:                    c.Spec.VolumeMode,
			PersistentVolumeReclaimPolicy: policyOf(class),
			StorageClassName:              className(c),
			MountOptions:                  class.MountOptions,
			ClaimRef: &corev1.ObjectReference{
				Kind:            "PersistentVolumeClaim",
				APIVersion:      "v1",
				Namespace:       c.Namespace,
				Name:            c.Name,
				UID:             c.UID,
				ResourceVersion: c.ResourceVersion,
			},
			NodeAffinity: affinity(v.GetAccessibleTopology()),
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: f.driver, VolumeHandle: v.GetVolumeId(), VolumeAttributes: v.GetVolumeContext()}},
		},
	}
	if c.Spec.VolumeMode == nil || *c.Spec.VolumeMode == corev1.PersistentVolumeFilesystem {
		pv.Spec.CSI.FSType = class.Parameters[paramFSType]
	}

	return pv
}

func policyOf(class *storagev1.StorageClass) corev1.PersistentVolumeReclaimPolicy {
	if class.ReclaimPolicy == nil {
		return corev1.PersistentVolumeReclaimDelete
	}
	return *class.ReclaimPolicy
}

func affinity(topologies []*csi.Topology) *corev1.VolumeNodeAffinity {
	selector := &corev1.NodeSelector{}
	for _, t := range topologies {
		var term corev1.NodeSelectorTerm
		for key, value := range t.GetSegments() {
			term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{
				Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{value}})
		}
		selector.NodeSelectorTerms = append(selector.NodeSelectorTerms, term)
	}
	return &corev1.VolumeNodeAffinity{Required: selector}
}

// onNode reports whether a volume is on the node alone, by the topology that it was made with.
func onNode(pv *corev1.PersistentVolume, key, node string) bool {
	if pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil ||
		len(pv.Spec.NodeAffinity.Required.NodeSelectorTerms) != 1 {
		return false
	}
	for _, e := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions {
		if e.Key == key && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 &&
			e.Values[0] == node {
			return true
		}
	}
	return false
}

// disposal is what to do about a PersistentVolume.
type disposal string

const (
	keep    disposal = "keep"
	mark    disposal = "mark"    // put our finalizer on: its object may go before its claim
	destroy disposal = "destroy" // delete content and object
	letGo   disposal = "let go"  // take our finalizer off: the content is retained
)

// dispose decides about a PersistentVolume. It is pure.
func dispose(pv *corev1.PersistentVolume, driver, topologyKey, node string) disposal {
	if pv.Annotations[annProvisionedBy] != driver || pv.Spec.CSI == nil || pv.Spec.CSI.Driver != driver ||
		!onNode(pv, topologyKey, node) {
		return keep
	}

	deleted, inUse := pv.DeletionTimestamp != nil, pv.Status.Phase == corev1.VolumeBound
	switch {
	case !hasFinalizer(pv) && deleted:
		// the content is gone, the object is about to
		return keep
	case !hasFinalizer(pv) && inUse:
		return mark
	case pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete && deleted && !inUse:
		return letGo
	case pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		return keep
	case pv.Status.Phase == corev1.VolumeReleased:
		return destroy
	case deleted && pv.Status.Phase == corev1.VolumeAvailable:
		return destroy
	}

	return keep
}

func hasFinalizer(pv *corev1.PersistentVolume) bool {
	for _, f := range pv.Finalizers {
		if f == finalizer {
			return true
		}
	}
	return false
}
