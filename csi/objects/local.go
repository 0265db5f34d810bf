// Package objects is what the Kubernetes API knows of the volumes of one node: the objects that the node's
// controllers watch together (Watched), and what those objects mean for the driver there (Local) and in CSI
// (Parameters, Capability). It decides nothing and writes nothing.
package objects

import (
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// ProvisionedBy is the annotation of PersistentVolumes that names the driver that made them.
const ProvisionedBy = "pv.kubernetes.io/provisioned-by"

// Finalizer keeps a PersistentVolume until its content is deleted. The name is external-provisioner's, so
// that either can take over.
const Finalizer = "external-provisioner.volume.kubernetes.io/finalizer"

// Local is the driver of one node.
type Local struct {
	Driver      string // its CSI name
	TopologyKey string // label that carries the node's name
	Node        string
}

// Topology is where volumes of the driver can be reached, in CSI.
func (l Local) Topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{l.TopologyKey: l.Node}}
}

// Affinity is where volumes of the driver can be reached, in the Kubernetes API.
func (l Local) Affinity() *corev1.VolumeNodeAffinity { return Affinity(l.Topology()) }

// Affinity translates topologies, of which a pod needs one.
func Affinity(topologies ...*csi.Topology) *corev1.VolumeNodeAffinity {
	selector := &corev1.NodeSelector{}
	for _, t := range topologies {
		var term corev1.NodeSelectorTerm
		for key, value := range t.GetSegments() {
			term.MatchExpressions = append(term.MatchExpressions, corev1.NodeSelectorRequirement{
				Key:      key,
				Operator: corev1.NodeSelectorOpIn,
				Values:   []string{value},
			})
		}

		selector.NodeSelectorTerms = append(selector.NodeSelectorTerms, term)
	}

	return &corev1.VolumeNodeAffinity{Required: selector}
}

// Holds reports whether a PersistentVolume is a volume of the driver that can be reached on this node alone.
func (l Local) Holds(pv *corev1.PersistentVolume) bool {
	node, ok := NodeOf(pv, l.Driver, l.TopologyKey)
	return ok && node == l.Node
}

// NodeOf returns the only node on which a PersistentVolume can be reached; ok is false if there is no such
// one, or if the volume is another driver's.
func NodeOf(pv *corev1.PersistentVolume, driver, topologyKey string) (node string, ok bool) {
	affinity := pv.Spec.NodeAffinity
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != driver || affinity == nil || affinity.Required == nil ||
		len(affinity.Required.NodeSelectorTerms) != 1 {
		return "", false
	}

	for _, e := range affinity.Required.NodeSelectorTerms[0].MatchExpressions {
		if e.Key == topologyKey && e.Operator == corev1.NodeSelectorOpIn && len(e.Values) == 1 {
			return e.Values[0], true
		}
	}
	return "", false
}

// Allows reports whether the allowedTopologies of a class, if it has any, include the node. Terms about other
// keys are left to the scheduler.
func (l Local) Allows(class *storagev1.StorageClass) bool {
	if len(class.AllowedTopologies) == 0 {
		return true
	}
	excludes := func(e corev1.TopologySelectorLabelRequirement) bool {
		return e.Key == l.TopologyKey && !slices.Contains(e.Values, l.Node)
	}
	return slices.ContainsFunc(class.AllowedTopologies, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, excludes)
	})
}

// Runs reports whether the driver is registered on a node. It is not on a nil one.
func (l Local) Runs(n *storagev1.CSINode) bool {
	return n != nil && slices.ContainsFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool {
		return d.Name == l.Driver
	})
}

// Waits reports whether volumes of a class are made when the first pod that uses them is scheduled.
func Waits(class *storagev1.StorageClass) bool {
	return class.VolumeBindingMode != nil &&
		*class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

const (
	// ParameterPrefix begins the parameters of a class that are not for the driver.
	ParameterPrefix = "csi.storage.k8s.io/"

	// FSType is the parameter of a class that names the file system.
	FSType = ParameterPrefix + "fstype"
)

// Parameters returns those of a class that are the driver's.
func Parameters(class *storagev1.StorageClass) map[string]string {
	own := map[string]string{}
	for key, value := range class.Parameters {
		if !strings.HasPrefix(key, ParameterPrefix) {
			own[key] = value
		}
	}
	return own
}

// accessModes are those of claims, in CSI.
var accessModes = map[corev1.PersistentVolumeAccessMode]csi.VolumeCapability_AccessMode_Mode{
	corev1.ReadWriteOnce:    csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	corev1.ReadWriteOncePod: csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	corev1.ReadOnlyMany:     csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
	corev1.ReadWriteMany:    csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER,
}

// Capability is what a volume of a class must be able to do, in CSI. A mode of nil is a file system. An
// access mode that is not known stands for none, which drivers refuse.
func Capability(
	class *storagev1.StorageClass,
	access corev1.PersistentVolumeAccessMode,
	mode *corev1.PersistentVolumeMode,
) *csi.VolumeCapability {
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: accessModes[access]},
	}
	if mode != nil && *mode == corev1.PersistentVolumeBlock {
		capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return capability
	}

	capability.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{
		FsType:     class.Parameters[FSType],
		MountFlags: class.MountOptions,
	}}

	return capability
}
