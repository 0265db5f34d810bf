package provision

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// grows tells whether a bound claim asks for more than it has. It is pure.
func grows(c *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume, driver, topologyKey, node string) bool {
	if c.DeletionTimestamp != nil || c.Status.Phase != corev1.ClaimBound || pv.Spec.CSI == nil || pv.Spec.CSI.Driver != driver ||
		!onNode(pv, topologyKey, node) || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != c.UID {
		return false
	}
	want, have := c.Spec.Resources.Requests[corev1.ResourceStorage], c.Status.Capacity[corev1.ResourceStorage]
	if want.Cmp(have) <= 0 {
		return false
	}
	// The volume may be large enough while its file system is not yet: then the rest is kubelet's.
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	return want.Cmp(size) > 0 || !pendingOnNode(c)
}

func pendingOnNode(c *corev1.PersistentVolumeClaim) bool {
	for _, condition := range c.Status.Conditions {
		if condition.Type == corev1.PersistentVolumeClaimFileSystemResizePending && condition.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}

// resize makes the volume of a bound claim as large as the claim asks, the way external-resizer does: first the volume, then the capacity of
// its object, then the claim's status, or the condition that tells kubelet to let the file system grow.
func (p *Provisioner) resize(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	pv := p.volumes.Get(c.Spec.VolumeName)
	if pv == nil || !grows(c, pv, p.cfg.Driver, p.cfg.TopologyKey, p.cfg.Node) {
		return nil // without an object yet, the claim comes again when it is bound
	}
	want := c.Spec.Resources.Requests[corev1.ResourceStorage]
	p.events.claim(c, corev1.EventTypeNormal, "Resizing", "External resizer is resizing volume %s", pv.Name)
	resp, err := p.cfg.CSI.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle,
		CapacityRange: &csi.CapacityRange{RequiredBytes: want.Value()}})
	if err != nil {
		p.events.claim(c, corev1.EventTypeWarning, "VolumeResizeFailed", "resize volume %q by resizer %q failed: %v", pv.Name, p.cfg.Driver, err)
		return fmt.Errorf("grow volume of claim %s/%s: %w", c.Namespace, c.Name, err)
	}
	size := resource.NewQuantity(resp.GetCapacityBytes(), resource.BinarySI)
	patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"capacity":{"storage":%q}}}`, pv.UID, size.String())
	if err := p.cfg.Client.PatchVolume(ctx, pv.Name, []byte(patch)); err != nil {
		return fmt.Errorf("set capacity of PersistentVolume %s: %w", pv.Name, err)
	}
	if err := p.patchGrown(ctx, c, *size, resp.GetNodeExpansionRequired()); err != nil {
		return err
	}
	if resp.GetNodeExpansionRequired() {
		p.events.claim(c, corev1.EventTypeNormal, "FileSystemResizeRequired", "Require file system resize of volume on node")
	} else {
		p.events.claim(c, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	}
	return nil
}

// patchGrown writes the outcome into the claim's status, on the version that was read.
func (p *Provisioner) patchGrown(ctx context.Context, c *corev1.PersistentVolumeClaim, size resource.Quantity, nodeStep bool) error {
	var conditions []corev1.PersistentVolumeClaimCondition
	for _, old := range c.Status.Conditions {
		if old.Type != corev1.PersistentVolumeClaimResizing && old.Type != corev1.PersistentVolumeClaimFileSystemResizePending {
			conditions = append(conditions, old)
		}
	}
	status := map[string]any{"conditions": conditions}
	if nodeStep {
		status["conditions"] = append(conditions, corev1.PersistentVolumeClaimCondition{Type: corev1.PersistentVolumeClaimFileSystemResizePending,
			Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(),
			Message: "Waiting for user to (re-)start a pod to finish file system resize of volume on node."})
	} else {
		status["capacity"] = corev1.ResourceList{corev1.ResourceStorage: size}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": c.UID, "resourceVersion": c.ResourceVersion}, "status": status})
	if err != nil {
		return err
	}
	if err := p.cfg.Client.PatchClaim(ctx, c.Namespace, c.Name, patch, "status"); err != nil {
		return fmt.Errorf("set status of claim %s/%s: %w", c.Namespace, c.Name, err)
	}
	return nil
}
