package provision

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Each node watches the claims and volumes of the whole cluster. What is kept of them in memory is what decisions rest on.

// slimVolume keeps that a volume of another node or driver exists, and of its own what disposal and growth need.
func (p *Provisioner) slimVolume(pv *corev1.PersistentVolume) {
	slimMeta(&pv.ObjectMeta)
	if pv.Spec.CSI == nil || pv.Spec.CSI.Driver != p.cfg.Driver || !onNode(pv, p.cfg.TopologyKey, p.cfg.Node) {
		*pv = corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: pv.Name, UID: pv.UID, ResourceVersion: pv.ResourceVersion}}
		return
	}
	pv.Annotations = map[string]string{annProvisionedBy: pv.Annotations[annProvisionedBy]}
	pv.Spec.CSI.VolumeAttributes, pv.Spec.MountOptions = nil, nil
}

// slimClaim keeps of a claim with a volume what growth needs, and all of one without.
func (p *Provisioner) slimClaim(c *corev1.PersistentVolumeClaim) {
	slimMeta(&c.ObjectMeta)
	if c.Spec.VolumeName != "" {
		c.Annotations, c.Finalizers = nil, nil
		c.Spec = corev1.PersistentVolumeClaimSpec{VolumeName: c.Spec.VolumeName, Resources: c.Spec.Resources}
	}
}

func slimMeta(m *metav1.ObjectMeta) { m.ManagedFields, m.Labels, m.OwnerReferences = nil, nil, nil }
