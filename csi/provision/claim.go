package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
)

// lookAgain is when a claim that found no room is looked at again without a hint.
const lookAgain = 15 * time.Second

// lookAtClaim brings one claim a step further.
func (p *Provisioner) lookAtClaim(ctx context.Context, key string) error {
	f := p.facts(key)
	d := decide(f)
	p.cfg.Log.Debug("claim", "claim", key, "action", string(d.action), "reason", d.reason)
	if err := p.endIntents(ctx, key, f, d); err != nil {
		return err
	}

	switch d.action {
	case create:
		return p.create(ctx, f)
	case selectHere:
		return p.selectHere(ctx, f)
	case bringHere:
		return p.bringHere(ctx, f)
	case reschedule:
		return p.reschedule(ctx, f.claim)
	case wait:
		p.claimQueue.AddAfter(key, d.after)
	case refuse:
		p.fail(f.claim, "%s", d.reason)
	case ignore:
	}

	return nil
}

func (p *Provisioner) facts(key string) facts {
	f := facts{
		local: p.cfg.Local,
		claim: p.cfg.Objects.Claims.Get(key),
		nodes: p.cfg.Objects.Nodes(p.cfg.Local),
		now:   time.Now(),
	}
	if f.claim != nil {
		f.class = p.cfg.Objects.Classes.Get(className(f.claim))
		f.full = p.full.Of(f.claim.UID).Until
	}
	return f
}

// create makes the volume of a claim and the object for it. The intent is on disk before the driver is called
// and is removed when the object exists, so that a process that was killed in between knows what it has to
// look after.
func (p *Provisioner) create(ctx context.Context, f facts) error {
	name, key := volumeName(f.claim), kube.Key(f.claim)
	if p.cfg.Objects.Volumes.Get(name) != nil {
		// Binding claim and object is up to the controller-manager.
		return p.intents.remove(name)
	}

	var err error
	if f.attributes, err = p.attributes.of(ctx, f.claim); err != nil {
		p.fail(f.claim, "failed to provision volume with StorageClass %q: %v", f.class.Name, err)
		return err
	}

	if f.secret, err = stageSecret(f.claim, f.class); err != nil {
		p.fail(f.claim, "failed to provision volume with StorageClass %q: %v", f.class.Name, err)
		return err
	}

	req, err := createRequest(f)
	if err != nil {
		p.fail(f.claim, "%v", err)

		// Only a changed claim can do better, and a change comes by itself.
		return nil
	}

	req.VolumeContentSource, err = p.sourceOnce(ctx, name, f.claim)
	if err != nil {
		return p.noSource(f, err)
	}

	// The intent has the request itself: repeated, it returns the volume that it may have made.
	p.event(f.claim, corev1.EventTypeNormal, "Provisioning",
		"External provisioner is provisioning volume for claim %q", key)
	i, err := newIntent(f, req)
	if err != nil {
		return err
	}
	if err := p.intents.add(name, i); err != nil {
		return err
	}

	resp, err := p.cfg.CSI.CreateVolume(ctx, req)
	if err != nil {
		return p.notCreated(ctx, f, err)
	}
	if err := createObject(ctx, p.volumes, persistentVolume(f, resp.GetVolume())); err != nil {
		return err
	}

	p.event(f.claim, corev1.EventTypeNormal, "ProvisioningSucceeded",
		"Successfully provisioned volume %s", name)
	p.cfg.Log.Info("provisioned", "claim", key, "volume", name, "bytes", resp.GetVolume().GetCapacityBytes())
	return p.intents.remove(name)
}

// noSource records why the content that a claim wants cannot be had. If it is on another node, the claim is
// for the driver there to take (bringHere).
func (p *Provisioner) noSource(f facts, err error) error {
	p.fail(f.claim, "failed to provision volume with StorageClass %q: %v", f.class.Name, err)
	if errors.Is(err, errElsewhere) {
		p.claimQueue.AddAfter(kube.Key(f.claim), lookAgain)
		return nil
	}
	return err
}

// createObject creates a PersistentVolume, or finds that an earlier attempt has.
func createObject(
	ctx context.Context,
	volumes kube.Objects[corev1.PersistentVolume],
	pv *corev1.PersistentVolume,
) error {
	_, err := volumes.Create(ctx, pv)
	if apierrors.IsAlreadyExists(err) {
		have, err := volumes.Get(ctx, "", pv.Name)
		if err != nil {
			return err
		}
		if have.Spec.CSI == nil || have.Spec.CSI.VolumeHandle != pv.Spec.CSI.VolumeHandle {
			return fmt.Errorf("a PersistentVolume %s that is not ours exists already", pv.Name)
		}

		return nil
	}

	if err != nil {
		return fmt.Errorf("create PersistentVolume %s: %w", pv.Name, err)
	}

	return nil
}

// notCreated records why there is no volume. When the node is full, the claim is left to the scheduler again,
// to choose another one.
func (p *Provisioner) notCreated(ctx context.Context, f facts, err error) error {
	full := status.Code(err) == codes.ResourceExhausted
	if ctx.Err() != nil && !full {
		// Asked to end, or timed out: the intent stays, and the call is repeated.
		return err
	}

	p.fail(f.claim, "failed to provision volume with StorageClass %q: %v", f.class.Name, err)
	if !isFinal(err) {
		return err
	}
	if removeErr := p.intents.remove(volumeName(f.claim)); removeErr != nil {
		return errors.Join(err, removeErr)
	}
	if !full {
		return err
	}

	p.cfg.Log.Info("no room, another node may be chosen", "claim", kube.Key(f.claim), "err", err)
	p.full.Add(f.claim.UID, struct{}{}, f.now, lookAgain)
	return p.patchSelectedNode(ctx, f.claim, "null")
}

// isFinal reports whether the driver is done with a failed call, so that no volume can come of it any more.
func isFinal(err error) bool {
	s, ok := status.FromError(err)
	if !ok {
		return false
	}
	switch s.Code() {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.Aborted, codes.Unknown:
		return false
	}
	return true
}

// selectHere selects this node for an Immediate claim, if the volume fits here. The first node that writes
// has it: the API server decides.
func (p *Provisioner) selectHere(ctx context.Context, f facts) error {
	req, err := createRequest(f)
	if err != nil {
		p.fail(f.claim, "%v", err)
		return nil
	}

	free, err := p.cfg.CSI.GetCapacity(ctx, &csi.GetCapacityRequest{
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
		AccessibleTopology: f.local.Topology(),
	})
	if err != nil {
		p.fail(f.claim, "failed to provision volume with StorageClass %q: %v", f.class.Name, err)
		return err
	}

	// Content on another node is for the driver there.
	if _, err := p.sources.of(ctx, f.claim); err != nil {
		if errors.Is(err, errElsewhere) {
			p.claimQueue.AddAfter(kube.Key(f.claim), lookAgain)
			return nil
		}
		p.fail(f.claim, "failed to provision volume with StorageClass %q: %v", f.class.Name, err)
		return err
	}

	// One node says that there is no room; the others just do not take the claim.
	have, need := free.GetAvailableCapacity(), req.GetCapacityRange().GetRequiredBytes()
	if have < need {
		if f.first() {
			p.fail(f.claim, "failed to provision volume with StorageClass %q:"+
				" node %s has room for %d bytes, not for %d", f.class.Name, f.local.Node, have, need)
		}

		p.claimQueue.AddAfter(kube.Key(f.claim), lookAgain)
		return nil
	}

	err = p.patchSelectedNode(ctx, f.claim, fmt.Sprintf("%q", f.local.Node))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// Another node was faster; the change comes as an event.
		return nil
	}

	return err
}

// bringHere selects this node for a claim whose content is here, in place of the one that the scheduler has
// selected: that knows nothing of contents, and would select the same node each time. It puts the pod on the
// node that is selected.
func (p *Provisioner) bringHere(ctx context.Context, f facts) error {
	key := kube.Key(f.claim)
	if after := f.full.Sub(f.now); after > 0 {
		p.claimQueue.AddAfter(key, after)
		return nil
	}

	// What is wrong with the source is said by the node that was selected; what this node cannot read, here.
	_, err := p.sources.of(ctx, f.claim)
	switch {
	case errors.Is(err, errElsewhere):
		return nil
	case errors.Is(err, errUnread):
		return fmt.Errorf("whether the content is here: %w", err)
	case err != nil:
		p.claimQueue.AddAfter(key, lookAgain)
		return nil
	}

	err = p.patchSelectedNode(ctx, f.claim, fmt.Sprintf("%q", f.local.Node))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// The change comes as an event.
		return nil
	}

	return err
}

// reschedule leaves a claim to the scheduler again when the node that was selected for it is gone: nobody
// else would.
func (p *Provisioner) reschedule(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	node := c.Annotations[annSelectedNode]
	_, err := p.nodes.Metadata(ctx, "", node)
	if !apierrors.IsNotFound(err) {
		// It exists: its driver has yet to register.
		return err
	}
	p.cfg.Log.Info("selected node is gone, another one may be chosen", "claim", kube.Key(c), "node", node)
	return p.patchSelectedNode(ctx, c, "null")
}

// patchSelectedNode writes or removes (null) the annotation, on the very version of the claim that the
// decision was made on.
func (p *Provisioner) patchSelectedNode(
	ctx context.Context,
	c *corev1.PersistentVolumeClaim,
	value string,
) error {
	patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"uid":%q,"annotations":{%q:%s}}}`,
		c.ResourceVersion, c.UID, annSelectedNode, value)
	_, err := p.claims.Patch(ctx, c.Namespace, c.Name, types.MergePatchType, []byte(patch))
	if err != nil {
		return fmt.Errorf("set %s of claim %s to %s: %w", annSelectedNode, kube.Key(c), value, err)
	}
	return nil
}

// endIntents ends the creation of volumes for a claim that is not for this node, or is not any more. A
// creation that is about to continue is left alone.
func (p *Provisioner) endIntents(ctx context.Context, key string, f facts, d decision) error {
	var errs []error
	for volume, i := range p.intents.of(key) {
		if d.action == create && string(f.claim.UID) == i.UID {
			continue
		}
		if err := p.endIntent(ctx, volume, i); err != nil {
			errs = append(errs, fmt.Errorf("end the creation of volume %s: %w", volume, err))
		}
	}
	return errors.Join(errs...)
}

// endIntent deletes a volume that nobody wants. It asks the API server itself, not the cache.
func (p *Provisioner) endIntent(ctx context.Context, volume string, i intent) error {
	_, err := p.volumes.Get(ctx, "", volume)
	if err == nil {
		return p.intents.remove(volume)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}

	claim, err := p.claims.Get(ctx, i.Namespace, i.Claim)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}

	if err == nil && p.isWanted(claim, i) {
		// The event that the cache has not seen yet leads here again.
		return nil
	}

	// Its object may have been there, and somebody's data with it: retained volumes are deleted by hand.
	if i.Policy == corev1.PersistentVolumeReclaimRetain {
		p.cfg.Log.Warn("a volume that may have been made for nobody is retained",
			"claim", i.key(), "volume", volume)
		return p.intents.remove(volume)
	}

	if err := p.deleteUnwanted(ctx, i); err != nil {
		return err
	}

	p.cfg.Log.Info("deleted a volume that was made for nobody", "claim", i.key(), "volume", volume)
	return p.intents.remove(volume)
}

// isWanted reports whether a claim is the one that an intent is for, and still waits for this node.
func (p *Provisioner) isWanted(claim *corev1.PersistentVolumeClaim, i intent) bool {
	return string(claim.UID) == i.UID && claim.DeletionTimestamp == nil &&
		claim.Annotations[annSelectedNode] == p.cfg.Local.Node
}

// deleteUnwanted deletes the volume of an intent. Its ID is learned by repeating the call that may have made
// it; if that fails for good, there is nothing to delete.
func (p *Provisioner) deleteUnwanted(ctx context.Context, i intent) error {
	req, err := i.request()
	if err != nil {
		return err
	}

	resp, err := p.cfg.CSI.CreateVolume(ctx, req)
	if err != nil && isFinal(err) {
		return nil
	}
	if err != nil {
		return err
	}

	_, err = p.cfg.CSI.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: resp.GetVolume().GetVolumeId()})
	return err
}
