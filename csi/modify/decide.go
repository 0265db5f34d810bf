package modify

import (
	"time"

	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
)

// action is what to do about a bound claim.
type action string

const (
	ignore action = "ignore" // its volume has the attributes that it asks for, or the claim is not ours
	change action = "change" // give its volume the attributes of a class
	resume action = "resume" // finish what was begun for a class
	forget action = "forget" // take out of its status a change that its user has given up
	wait   action = "wait"   // look again after a while
)

// facts are all that the decision about a claim rests on.
type facts struct {
	local   objects.Local
	claim   *corev1.PersistentVolumeClaim
	volume  *corev1.PersistentVolume // nil: not known yet
	refused refusal.Refusal[string]  // of a class: the last one
	now     time.Time
}

type decision struct {
	action action
	class  string        // for change and resume
	after  time.Duration // for wait
	reason string
}

// volumeDelay is how long a volume may become known after its claim.
const volumeDelay = time.Second

// decide says what to do about a claim. It is pure: the same facts give the same decision.
func decide(f facts) decision {
	c := f.claim
	switch {
	case !objects.AsksForAttributes(c):
		return decision{action: ignore, reason: "claim has the attributes that it asks for"}
	case c.DeletionTimestamp != nil:
		return decision{action: ignore, reason: "claim is being deleted"}
	case f.volume == nil:
		return decision{action: wait, after: volumeDelay, reason: "its volume is not known yet"}
	case !f.local.Holds(f.volume):
		return decision{action: ignore, reason: "volume is not on this node"}
	case c.Status.Phase != corev1.ClaimBound:
		return decision{action: ignore, reason: "claim is not bound"}
	case f.volume.Spec.ClaimRef == nil || f.volume.Spec.ClaimRef.UID != c.UID:
		return decision{action: ignore, reason: "volume is another claim's"}
	}

	return decideClass(f)
}

// decideClass says which class the volume of a claim of ours is to have.
func decideClass(f facts) decision {
	wanted, begun := objects.WantedAttributes(f.claim), begunFor(f.claim)
	switch {
	case begun != "" && begun != wanted && (wanted == "" || !isSettled(f.claim)):
		return decision{action: resume, class: begun, reason: "what came of the last call is not known"}
	case begun != "" && begun == wanted:
		return decision{action: resume, class: begun, reason: "it was begun"}
	case wanted == "" && conditionOf(f.claim, corev1.PersistentVolumeClaimVolumeModifyingVolume) != nil:
		return decision{action: forget, reason: "the change is given up"}
	case wanted == "":
		return decision{action: ignore, reason: "claim asks for no class"}
	}

	if after := f.refused.Left(wanted, f.now); after > 0 {
		return decision{action: wait, after: after, reason: "the driver has refused this class"}
	}

	return decision{action: change, class: wanted}
}

// begunFor is the class that a call of the driver was begun for, and is not finished; "" if there is none.
func begunFor(c *corev1.PersistentVolumeClaim) string {
	s := c.Status.ModifyVolumeStatus
	if s == nil || s.Status != corev1.PersistentVolumeClaimModifyVolumeInProgress {
		return ""
	}
	return s.TargetVolumeAttributesClassName
}

// isSettled reports whether the claim says that the last call of the driver failed for good, so that nothing
// can come of it any more.
func isSettled(c *corev1.PersistentVolumeClaim) bool {
	failed := conditionOf(c, corev1.PersistentVolumeClaimVolumeModifyVolumeError)
	if failed == nil {
		return false
	}
	for _, code := range unsettled {
		if failed.Reason == code.String() {
			return false
		}
	}
	return true
}

// unsettled are the codes after which a call may still be under way (CSI specification, "Error Scheme").
var unsettled = []codes.Code{
	codes.Canceled,
	codes.DeadlineExceeded,
	codes.Unavailable,
	codes.ResourceExhausted,
	codes.Aborted,
}

func conditionOf(
	c *corev1.PersistentVolumeClaim,
	kind corev1.PersistentVolumeClaimConditionType,
) *corev1.PersistentVolumeClaimCondition {
	for i := range c.Status.Conditions {
		if c.Status.Conditions[i].Type == kind {
			return &c.Status.Conditions[i]
		}
	}
	return nil
}
