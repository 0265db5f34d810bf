package provision

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Each node watches the claims and volumes of the whole cluster. What is kept of them in memory is what
// decisions rest on; small maps are most of an object's size.

// slimVolume keeps that a volume of another driver exists, of one of this driver its handle, too, and of
// those on this node what disposal and growth need.
func (p *Provisioner) slimVolume(pv *corev1.PersistentVolume) {
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != p.cfg.Driver ||
		!onNode(pv, p.cfg.TopologyKey, p.cfg.Node) {
		meta := metav1.ObjectMeta{Name: pv.Name, UID: pv.UID, ResourceVersion: pv.ResourceVersion}
		source := pv.Spec.CSI
		*pv = corev1.PersistentVolume{ObjectMeta: meta}
		if source != nil && source.Driver == p.cfg.Driver {
			pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{
				Driver:       p.cfg.Driver,
				VolumeHandle: source.VolumeHandle,
			}
		}

		return
	}

	slimMeta(&pv.ObjectMeta)
	if pv.Annotations[annProvisionedBy] == p.cfg.Driver {
		pv.Annotations = p.ours
	} else {
		pv.Annotations = nil
	}

	pv.Spec.NodeAffinity = p.here
	pv.Spec.CSI.VolumeAttributes, pv.Spec.MountOptions, pv.Spec.AccessModes = nil, nil, nil
}

// slimClaim keeps all of a claim without a volume; of one with a volume what growth needs, if it asks for
// more than it has.
func (p *Provisioner) slimClaim(c *corev1.PersistentVolumeClaim) {
	slimMeta(&c.ObjectMeta)
	if c.Spec.VolumeName == "" {
		return
	}

	c.Annotations, c.Finalizers = nil, nil
	c.Spec = corev1.PersistentVolumeClaimSpec{VolumeName: c.Spec.VolumeName, Resources: c.Spec.Resources}
	grows := asksForMore(c) || len(c.Status.AllocatedResourceStatuses) > 0

	// a change comes as an event with the whole claim
	if c.Status.Phase != corev1.ClaimBound || !grows {
		c.Spec.Resources, c.Status = corev1.VolumeResourceRequirements{}, corev1.PersistentVolumeClaimStatus{}
	}
}

func slimMeta(m *metav1.ObjectMeta) { m.ManagedFields, m.Labels, m.OwnerReferences = nil, nil, nil }
