package provision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// lookAgain is when a claim that found no room is looked at again without a hint.
const lookAgain = 15 * time.Second

// syncClaim brings one claim a step further.
func (p *Provisioner) syncClaim(ctx context.Context, key string) error {
	f := p.facts(key)
	d := decide(f)
	p.cfg.Log.Debug("claim", "claim", key, "action", string(d.action), "reason", d.reason)
	if err := p.settleBut(ctx, key, f, d); err != nil {
		return err
	}

	switch d.action {
	case create:
		return p.provision(ctx, f)
	case take:
		return p.take(ctx, f)
	case free:
		return p.giveBack(ctx, f.claim)
	case wait:
		p.claimQueue.AddAfter(key, d.after)
	case refuse:
		p.events.claim(f.claim, corev1.EventTypeWarning, "ProvisioningFailed", "%s", d.reason)
	case bound:
		return p.resize(ctx, f.claim)
	case ignore:
	}

	return nil
}

func (p *Provisioner) facts(key string) facts {
	f := facts{
		driver:      p.cfg.Driver,
		topologyKey: p.cfg.TopologyKey,
		node:        p.cfg.Node,
		nodes:       p.nodes(),
		now:         time.Now(),
	}
	if f.claim = p.claims.Get(key); f.claim != nil {
		f.class = p.classes.Get(className(f.claim))
		f.full = p.fullUntil(f.claim.UID, f.now)
	}

	return f
}

// fullUntil is when this node may take a claim again that it had no room for. The past is forgotten.
func (p *Provisioner) fullUntil(claim types.UID, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.full, func(_ types.UID, until time.Time) bool { return !until.After(now) })
	return p.full[claim]
}

// provision makes the volume of a claim and the object for it. The intent is on disk before the driver is
// called and goes when the object exists, so that a process killed in between knows what it has to look
// after.
func (p *Provisioner) provision(ctx context.Context, f facts) error {
	name := volumeName(f.claim)
	if p.volumes.Get(name) != nil {
		// the object is there; to bind it is the controller-manager's part
		return p.forget(name)
	}

	req, err := createRequest(f)
	if err != nil {
		p.events.claim(f.claim, corev1.EventTypeWarning, "ProvisioningFailed", "%v", err)

		// only a changed claim can do better, and a change comes by itself
		return nil
	}

	p.events.claim(
		f.claim,
		corev1.EventTypeNormal,
		"Provisioning",
		"External provisioner is provisioning volume for claim %q",
		f.claim.Namespace+"/"+f.claim.Name,
	)
	if err := p.remember(name, f, req); err != nil {
		return err
	}

	resp, err := p.cfg.CSI.CreateVolume(ctx, req)
	if err != nil {
		return p.failed(ctx, f, err)
	}
	if err := p.publish(ctx, persistentVolume(f, resp.GetVolume())); err != nil {
		return err
	}

	p.events.claim(
		f.claim,
		corev1.EventTypeNormal,
		"ProvisioningSucceeded",
		"Successfully provisioned volume %s",
		name,
	)

	p.cfg.Log.Info(
		"provisioned",
		"claim",
		f.claim.Namespace+"/"+f.claim.Name,
		"volume",
		name,
		"bytes",
		resp.GetVolume().GetCapacityBytes(),
	)

	return p.forget(name)
}

// publish creates the object, or finds that an earlier attempt has.
func (p *Provisioner) publish(ctx context.Context, pv *corev1.PersistentVolume) error {
	err := p.cfg.Client.CreateVolume(ctx, pv)
	if apierrors.IsAlreadyExists(err) {
		have, getErr := p.cfg.Client.Volume(ctx, pv.Name)
		if getErr != nil {
			return getErr
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

// failed tells the claim why there is no volume. When the node is full, the scheduler gets the claim back to
// choose another one.
func (p *Provisioner) failed(ctx context.Context, f facts, err error) error {
	if ctx.Err() != nil && status.Code(err) != codes.ResourceExhausted {
		// asked to end, or timed out: the intent stays, and the call is repeated
		return err
	}

	p.events.claim(
		f.claim,
		corev1.EventTypeWarning,
		"ProvisioningFailed",
		"failed to provision volume with StorageClass %q: %v",
		f.class.Name,
		err,
	)
	if !final(err) {
		return err
	}
	if forgetErr := p.forget(volumeName(f.claim)); forgetErr != nil {
		return errors.Join(err, forgetErr)
	}

	if status.Code(err) == codes.ResourceExhausted {
		p.cfg.Log.Info("no room, another node may be chosen",
			"claim", f.claim.Namespace+"/"+f.claim.Name, "err", err)
		p.mu.Lock()
		p.full[f.claim.UID] = f.now.Add(lookAgain)
		p.mu.Unlock()
		return p.patchSelectedNode(ctx, f.claim, "null")
	}

	return err
}

// final reports whether the driver is done with a failed call, so that nothing can come into being by it any
// more.
func final(err error) bool {
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

// take claims an Immediate claim for this node, if the volume fits here. Whoever writes first has it: the API
// server decides.
func (p *Provisioner) take(ctx context.Context, f facts) error {
	req, err := createRequest(f)
	if err != nil {
		p.events.claim(f.claim, corev1.EventTypeWarning, "ProvisioningFailed", "%v", err)
		return nil
	}

	free, err := p.cfg.CSI.GetCapacity(ctx, &csi.GetCapacityRequest{VolumeCapabilities: req.GetVolumeCapabilities(), Parameters: req.GetParameters(),
		AccessibleTopology: &csi.Topology{Segments: map[string]string{p.cfg.TopologyKey: p.cfg.Node}}})
	if err != nil {
		p.events.claim(
			f.claim,
			corev1.EventTypeWarning,
			"ProvisioningFailed",
			"failed to provision volume with StorageClass %q: %v",
			f.class.Name,
			err,
		)

		return err
	}

	if need := req.GetCapacityRange().GetRequiredBytes(); free.GetAvailableCapacity() < need {
		if rank(f.claim, f.node, f.nodes) == 0 {
			p.events.claim(f.claim, corev1.EventTypeWarning, "ProvisioningFailed",
				"failed to provision volume with StorageClass %q: node %s has room for %d bytes, not for %d", f.class.Name, f.node, free.GetAvailableCapacity(), need)
		}

		p.claimQueue.AddAfter(f.claim.Namespace+"/"+f.claim.Name, lookAgain)
		return nil
	}

	err = p.patchSelectedNode(ctx, f.claim, fmt.Sprintf("%q", f.node))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		// somebody was faster; the change comes as an event
		return nil
	}

	return err
}

// giveBack gives a claim back to the scheduler when the node that was selected for it is gone: nobody else
// would.
func (p *Provisioner) giveBack(ctx context.Context, c *corev1.PersistentVolumeClaim) error {
	node := c.Annotations[annSelectedNode]
	_, err := p.cfg.Client.NodeUID(ctx, node)
	if !apierrors.IsNotFound(err) {
		// it is there: its driver has yet to register
		return err
	}
	p.cfg.Log.Info("selected node is gone, another one may be chosen",
		"claim", c.Namespace+"/"+c.Name, "node", node)
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
	if err := p.cfg.Client.PatchClaim(ctx, c.Namespace, c.Name, []byte(patch)); err != nil {
		return fmt.Errorf("set %s of claim %s/%s to %s: %w", annSelectedNode, c.Namespace, c.Name, value, err)
	}
	return nil
}
