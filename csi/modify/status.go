package modify

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// progress is what is written into the status of a claim about a change of its attributes.
type progress struct {
	class  string                                         // that is changed to
	status corev1.PersistentVolumeClaimModifyVolumeStatus // "": the change is at its end
	errors error                                          // why the last call failed
	done   bool                                           // the volume has the class now
	keep   bool                                           // the conditions stay as they are
}

// maxMessage is how long, in bytes, the message of a condition gets here.
const maxMessage = 1024

func condition(
	kind corev1.PersistentVolumeClaimConditionType,
	reason, message string,
) corev1.PersistentVolumeClaimCondition {
	return corev1.PersistentVolumeClaimCondition{
		Type:               kind,
		Status:             corev1.ConditionTrue,
		LastTransitionTime: metav1.Now(),
		Reason:             reason,
		Message:            message[:min(len(message), maxMessage)],
	}
}

// conditions returns those of a claim with those of the change in the place of earlier ones.
func (p progress) conditions(c *corev1.PersistentVolumeClaim) []corev1.PersistentVolumeClaimCondition {
	if p.keep {
		return c.Status.Conditions
	}

	conditions := []corev1.PersistentVolumeClaimCondition{}
	for _, old := range c.Status.Conditions {
		switch old.Type {
		case corev1.PersistentVolumeClaimVolumeModifyingVolume,
			corev1.PersistentVolumeClaimVolumeModifyVolumeError:
		default:
			conditions = append(conditions, old)
		}
	}

	if p.status == "" {
		return conditions
	}

	how := "is in progress."
	if p.errors != nil {
		how = "failed. Waiting for retry."
	}
	conditions = append(conditions, condition(corev1.PersistentVolumeClaimVolumeModifyingVolume,
		"", fmt.Sprintf("Modifying volume to %q %s", p.class, how)))
	if p.errors == nil {
		return conditions
	}

	s := status.Convert(p.errors)
	return append(conditions, condition(corev1.PersistentVolumeClaimVolumeModifyVolumeError,
		s.Code().String(), s.Message()))
}

// patch is the JSON merge patch that writes the progress on the very version of the claim that was read.
func (p progress) patch(c *corev1.PersistentVolumeClaim) ([]byte, error) {
	after := map[string]any{"conditions": p.conditions(c)}
	switch {
	case p.status != "":
		after["modifyVolumeStatus"] = map[string]any{
			"status":                          p.status,
			"targetVolumeAttributesClassName": p.class,
		}
	case p.done:
		after["modifyVolumeStatus"] = nil
		after["currentVolumeAttributesClassName"] = p.class
	}

	meta := map[string]any{"uid": c.UID, "resourceVersion": c.ResourceVersion}
	return json.Marshal(map[string]any{"metadata": meta, "status": after})
}

// patchStatus writes a progress into the status of a claim and returns the claim as it is then.
func (m *Modifier) patchStatus(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	p progress,
) (*corev1.PersistentVolumeClaim, error) {
	patch, err := p.patch(c)
	if err != nil {
		return nil, err
	}
	after, err := m.claims.Patch(ctx, c.Namespace, c.Name, types.MergePatchType, patch, "status")
	if err != nil {
		return nil, fmt.Errorf("set status of claim %s/%s: %w", c.Namespace, c.Name, err)
	}
	return after, nil
}
