package resize

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
)

// action is what to do about a bound claim.
type action string

const (
	ignore action = "ignore" // it has what it asks for, or the next step is not ours
	grow   action = "grow"   // make its volume larger
	reset  action = "reset"  // take out of its status a growth that its user has given up
	wait   action = "wait"   // look again after a while
)

// facts are all that the decision about a claim rests on.
type facts struct {
	local   objects.Local
	claim   *corev1.PersistentVolumeClaim
	volume  *corev1.PersistentVolume // nil: not known yet
	refused refusal.Refusal[int64]   // of a size in bytes: the last one
	now     time.Time
}

type decision struct {
	action action
	size   resource.Quantity // for grow
	after  time.Duration     // for wait
	reason string
}

// volumeDelay is how long a volume may become known after its claim.
const volumeDelay = time.Second

// decide says what to do about a claim. It is pure: the same facts give the same decision.
func decide(f facts) decision {
	c := f.claim
	switch {
	case c.DeletionTimestamp != nil:
		return decision{action: ignore, reason: "claim is being deleted"}
	case f.volume == nil && objects.AsksForMore(c):
		return decision{action: wait, after: volumeDelay, reason: "its volume is not known yet"}
	case f.volume == nil:
		return decision{action: ignore, reason: "claim has what it asks for"}
	case !f.local.Holds(f.volume):
		return decision{action: ignore, reason: "volume is not on this node"}
	case !objects.AsksForMore(c) && isAbandoned(objects.Growth(c)):
		return decision{action: reset, reason: "the growth is given up"}
	case !objects.AsksForMore(c):
		return decision{action: ignore, reason: "claim has what it asks for"}
	case c.Status.Phase != corev1.ClaimBound:
		return decision{action: ignore, reason: "claim is not bound"}
	case f.volume.Spec.ClaimRef == nil || f.volume.Spec.ClaimRef.UID != c.UID:
		return decision{action: ignore, reason: "volume is another claim's"}
	}

	size, due := nextSize(c, f.volume)
	if !due {
		return decision{action: ignore, reason: "the file system has yet to grow: it is kubelet's turn"}
	}
	if after := f.refused.Left(size.Value(), f.now); after > 0 {
		return decision{action: wait, after: after, reason: "the driver has refused this size"}
	}

	return decision{action: grow, size: size}
}

// nextSize is the size that the volume of a claim is to be given; due is false when the volume is large
// enough and only its file system is not.
func nextSize(
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
) (size resource.Quantity, due bool) {
	requested, have := objects.Requested(c), pv.Spec.Capacity[corev1.ResourceStorage]
	if requested.Cmp(have) <= 0 && isWithKubelet(c) {
		return requested, false
	}

	// What came of the call for a larger size that its user has given up meanwhile is not known: it is
	// brought to an end first.
	allocated := c.Status.AllocatedResources[corev1.ResourceStorage]
	unfinished := objects.Growth(c) == corev1.PersistentVolumeClaimControllerResizeInProgress
	if unfinished && allocated.Cmp(requested) > 0 && have.Cmp(allocated) < 0 {
		return allocated, true
	}

	return requested, true
}

// isAbandoned reports whether a step of a growth was ours, so that nobody else takes it out of the status.
func isAbandoned(step corev1.ClaimResourceStatus) bool {
	return step == corev1.PersistentVolumeClaimControllerResizeInProgress ||
		step == corev1.PersistentVolumeClaimControllerResizeInfeasible
}

// isWithKubelet reports whether the claim's status says that the file system is to grow next.
func isWithKubelet(c *corev1.PersistentVolumeClaim) bool {
	switch objects.Growth(c) {
	case corev1.PersistentVolumeClaimNodeResizePending,
		corev1.PersistentVolumeClaimNodeResizeInProgress,
		corev1.PersistentVolumeClaimNodeResizeInfeasible:
		return true
	}

	for _, condition := range c.Status.Conditions {
		if condition.Type == corev1.PersistentVolumeClaimFileSystemResizePending &&
			condition.Status == corev1.ConditionTrue {
			return true
		}
	}

	return false
}
