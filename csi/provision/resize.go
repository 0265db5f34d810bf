package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A claim's status tells how far its growth has come, as external-resizer with RecoverVolumeExpansionFailure
// writes it: allocatedResources is the size that the volume is being given, allocatedResourceStatuses the
// step that is next. A user whose growth is infeasible may ask for less.

// growth tells what size the volume of a bound claim is to be given. It is pure.
func growth(
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	driver, topologyKey, node string,
) (size resource.Quantity, due bool) {
	if c.DeletionTimestamp != nil || c.Status.Phase != corev1.ClaimBound || pv.Spec.CSI == nil ||
		pv.Spec.CSI.Driver != driver ||
		!onNode(pv, topologyKey, node) || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != c.UID {
		return size, false
	}

	if !asksForMore(c) {
		return size, false
	}

	want, allocated, step := asked(c), c.Status.AllocatedResources[corev1.ResourceStorage], stepOf(c)

	// The volume may be large enough while its file system is not yet: then the rest is kubelet's.
	volume := pv.Spec.Capacity[corev1.ResourceStorage]
	if want.Cmp(volume) <= 0 && onNodeNow(c) {
		return size, false
	}

	// What came of the call for a size that the user has given up meanwhile is not known: it is brought to an
	// end first.
	if step == corev1.PersistentVolumeClaimControllerResizeInProgress && allocated.Cmp(want) > 0 &&
		volume.Cmp(allocated) < 0 {
		return allocated, true
	}

	return want, true
}

func asked(c *corev1.PersistentVolumeClaim) resource.Quantity {
	return c.Spec.Resources.Requests[corev1.ResourceStorage]
}

// asksForMore reports whether a claim asks for more than it has.
func asksForMore(c *corev1.PersistentVolumeClaim) bool {
	want := asked(c)
	return want.Cmp(c.Status.Capacity[corev1.ResourceStorage]) > 0
}

func stepOf(c *corev1.PersistentVolumeClaim) corev1.ClaimResourceStatus {
	return c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
}

// onNodeNow reports whether it is kubelet's turn.
func onNodeNow(c *corev1.PersistentVolumeClaim) bool {
	switch stepOf(c) {
	case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress,
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

// givenUp reports whether the user asks for no more than there is, while the status still tells of a growth.
// It is pure.
func givenUp(c *corev1.PersistentVolumeClaim) bool {
	step := stepOf(c)
	return !asksForMore(c) && (step == corev1.PersistentVolumeClaimControllerResizeInProgress ||
		step == corev1.PersistentVolumeClaimControllerResizeInfeasible)
}

// refusal is a size that the driver refused, and until when it is not asked again.
type refusal struct {
	bytes int64
	until time.Time
}

// refusedAgain is how long a growth that is infeasible waits for another try, if the user does not ask for
// another size.
const refusedAgain = time.Minute

// resize makes the volume of a bound claim as large as the claim asks, the way external-resizer does: first
// the volume, then the capacity of its object, then the claim's status, or the condition that tells kubelet
// to let the file system grow.
func (p *Provisioner) resize(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	pv := p.volumes.Get(c.Spec.VolumeName)

	// the news of a claim may be faster than that of its volume
	if pv == nil {
		if asksForMore(c) {
			p.claimQueue.AddAfter(c.Namespace+"/"+c.Name, time.Second)
		}

		return nil
	}

	want, due := growth(c, pv, p.cfg.Driver, p.cfg.TopologyKey, p.cfg.Node)
	if !due {
		if p.mine(pv) && givenUp(c) {
			_, err := p.patchGrowth(ctx, c, grown{})
			return err
		}

		return nil
	}

	if wait := p.refusedFor(c, want); wait > 0 {
		p.claimQueue.AddAfter(c.Namespace+"/"+c.Name, wait)
		return nil
	}

	p.events.claim(c, corev1.EventTypeNormal, "Resizing", "External resizer is resizing volume %s", pv.Name)
	c, err := p.patchGrowth(ctx, c, grown{
		allocated: &want,
		step:      corev1.PersistentVolumeClaimControllerResizeInProgress,
		condition: corev1.PersistentVolumeClaimResizing,
	})
	if err != nil {
		return err
	}

	resp, err := p.cfg.CSI.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId:      pv.Spec.CSI.VolumeHandle,
		CapacityRange: &csi.CapacityRange{RequiredBytes: want.Value()},
	})
	if err != nil {
		return p.notResized(ctx, c, pv, want, err)
	}

	return p.resized(ctx, c, pv, resp)
}

func (p *Provisioner) mine(pv *corev1.PersistentVolume) bool {
	return pv.Spec.CSI != nil && pv.Spec.CSI.Driver == p.cfg.Driver &&
		onNode(pv, p.cfg.TopologyKey, p.cfg.Node)
}

// resized writes down that the volume has grown.
func (p *Provisioner) resized(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	resp *csi.ControllerExpandVolumeResponse,
) error {
	size := resource.NewQuantity(resp.GetCapacityBytes(), resource.BinarySI)
	patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"capacity":{"storage":%q}}}`, pv.UID, size.String())
	if err := p.cfg.Client.PatchVolume(ctx, pv.Name, []byte(patch)); err != nil {
		return fmt.Errorf("set capacity of PersistentVolume %s: %w", pv.Name, err)
	}

	outcome := grown{capacity: size}
	if resp.GetNodeExpansionRequired() {
		outcome = grown{
			step:      corev1.PersistentVolumeClaimNodeResizePending,
			condition: corev1.PersistentVolumeClaimFileSystemResizePending,
			message:   "Waiting for user to (re-)start a pod to finish file system resize of volume on node.",
		}
	}

	if _, err := p.patchGrowth(ctx, c, outcome); err != nil {
		return err
	}

	if resp.GetNodeExpansionRequired() {
		p.events.claim(
			c,
			corev1.EventTypeNormal,
			"FileSystemResizeRequired",
			"Require file system resize of volume on node",
		)
	} else {
		p.events.claim(c, corev1.EventTypeNormal, "VolumeResizeSuccessful", "Resize volume succeeded")
	}

	return nil
}

// notResized tells the user. A growth that cannot be is marked so, and then a smaller one may be asked for;
// any other is tried again.
func (p *Provisioner) notResized(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	pv *corev1.PersistentVolume,
	want resource.Quantity,
	cause error,
) error {
	p.events.claim(
		c,
		corev1.EventTypeWarning,
		"VolumeResizeFailed",
		"resize volume %q by resizer %q failed: %v",
		pv.Name,
		p.cfg.Driver,
		cause,
	)

	switch status.Code(cause) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
	default:
		return fmt.Errorf("grow volume of claim %s/%s: %w", c.Namespace, c.Name, cause)
	}

	_, err := p.patchGrowth(ctx, c, grown{
		step:      corev1.PersistentVolumeClaimControllerResizeInfeasible,
		condition: corev1.PersistentVolumeClaimControllerResizeError,
		message:   status.Convert(cause).Message(),
	})
	if err != nil {
		return err
	}

	p.mu.Lock()
	p.refused[c.UID] = refusal{bytes: want.Value(), until: time.Now().Add(refusedAgain)}
	p.mu.Unlock()
	p.claimQueue.AddAfter(c.Namespace+"/"+c.Name, refusedAgain)
	return nil
}

// refusedFor is how long a growth of a claim that was refused is not to be tried again. The past is
// forgotten.
func (p *Provisioner) refusedFor(c *corev1.PersistentVolumeClaim, want resource.Quantity) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()

	now := time.Now()
	for uid, r := range p.refused {
		if now.After(r.until) {
			delete(p.refused, uid)
		}
	}

	if r := p.refused[c.UID]; r.bytes == want.Value() {
		return r.until.Sub(now)
	}

	return 0
}

// grown is what is written into the status of a claim about its growth. What is empty is taken out, the size
// in allocatedResources stays.
type grown struct {
	allocated *resource.Quantity
	capacity  *resource.Quantity
	step      corev1.ClaimResourceStatus
	condition corev1.PersistentVolumeClaimConditionType
	message   string
}

// ofGrowth are the conditions that tell of a growth; at most one of them is there.
var ofGrowth = map[corev1.PersistentVolumeClaimConditionType]bool{
	corev1.PersistentVolumeClaimResizing:                true,
	corev1.PersistentVolumeClaimFileSystemResizePending: true,
	corev1.PersistentVolumeClaimControllerResizeError:   true,
}

// patchGrowth writes into the claim's status, on the version that was read, and returns the claim as it is by
// then.
func (p *Provisioner) patchGrowth(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	g grown,
) (*corev1.PersistentVolumeClaim, error) {
	conditions := []corev1.PersistentVolumeClaimCondition{}
	for _, old := range c.Status.Conditions {
		if !ofGrowth[old.Type] {
			conditions = append(conditions, old)
		}
	}

	if g.condition != "" {
		conditions = append(conditions, corev1.PersistentVolumeClaimCondition{
			Type:               g.condition,
			Status:             corev1.ConditionTrue,
			LastTransitionTime: metav1.Now(),
			Message:            g.message[:min(len(g.message), eventText)],
		})
	}

	status := map[string]any{"conditions": conditions, "allocatedResourceStatuses": nil}
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
	patch, err := json.Marshal(map[string]any{"metadata": meta, "status": status})
	if err != nil {
		return nil, err
	}

	after, err := p.cfg.Client.PatchClaimStatus(ctx, c.Namespace, c.Name, patch)
	if err != nil {
		return nil, fmt.Errorf("set status of claim %s/%s: %w", c.Namespace, c.Name, err)
	}

	return after, nil
}
