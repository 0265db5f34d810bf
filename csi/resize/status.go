package resize

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// growth is what is written into the status of a claim about its growth. What is empty is taken out; the size
// in allocatedResources stays.
type growth struct {
	allocated *resource.Quantity
	capacity  *resource.Quantity
	step      corev1.ClaimResourceStatus
	condition corev1.PersistentVolumeClaimConditionType
	message   string
}

// ofGrowth are the conditions that are about a growth; at most one of them is there.
var ofGrowth = map[corev1.PersistentVolumeClaimConditionType]bool{
	corev1.PersistentVolumeClaimResizing:                true,
	corev1.PersistentVolumeClaimFileSystemResizePending: true,
	corev1.PersistentVolumeClaimControllerResizeError:   true,
}

// maxMessage is how long, in bytes, the message of a condition gets here.
const maxMessage = 1024

// conditions returns those of a claim with that of the growth in the place of earlier ones.
func (g growth) conditions(c *corev1.PersistentVolumeClaim) []corev1.PersistentVolumeClaimCondition {
	conditions := []corev1.PersistentVolumeClaimCondition{}
	for _, old := range c.Status.Conditions {
		if !ofGrowth[old.Type] {
			conditions = append(conditions, old)
		}
	}

	if g.condition == "" {
		return conditions
	}

	return append(conditions, corev1.PersistentVolumeClaimCondition{
		Type:               g.condition,
		Status:             corev1.ConditionTrue,
		LastTransitionTime: metav1.Now(),
		Message:            g.message[:min(len(g.message), maxMessage)],
	})
}

// patch is the JSON merge patch that writes the growth on the very version of the claim that was read.
func (g growth) patch(c *corev1.PersistentVolumeClaim) ([]byte, error) {
	status := map[string]any{
		"conditions":                g.conditions(c),
		"allocatedResourceStatuses": nil,
	}
	if g.step != "" {
		status["allocatedResourceStatuses"] = map[corev1.ResourceName]any{corev1.ResourceStorage: g.step}
	}
	if g.allocated != nil {
		status["allocatedResources"] = corev1.ResourceList{corev1.ResourceStorage: *g.allocated}
	}
	if g.capacity != nil {
		status["capacity"] = corev1.ResourceList{corev1.ResourceStorage: *g.capacity}
	}

	meta := map[string]any{"uid": c.UID, "resourceVersion": c.ResourceVersion}
	return json.Marshal(map[string]any{"metadata": meta, "status": status})
}

// patchStatus writes a growth into the status of a claim and returns the claim as it is then.
func (r *Resizer) patchStatus(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	g growth,
) (*corev1.PersistentVolumeClaim, error) {
	patch, err := g.patch(c)
	if err != nil {
		return nil, err
	}
	after, err := r.claims.Patch(ctx, c.Namespace, c.Name, types.MergePatchType, patch, "status")
	if err != nil {
		return nil, fmt.Errorf("set status of claim %s/%s: %w", c.Namespace, c.Name, err)
	}
	return after, nil
}
