package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/encoding/protojson"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// intent is a call of CreateVolume that may have made a volume for which no PersistentVolume exists yet. It
// is settled when the object exists, or when the volume is deleted because nobody wants it any more.
type intent struct {
	Namespace string `json:"namespace"`
	Claim     string `json:"claim"`
	UID       string `json:"uid"`
	// CreateVolumeRequest as protobuf JSON: repeated, it tells the volume's ID
	Request []byte `json:"request"`

	Policy corev1.PersistentVolumeReclaimPolicy `json:"policy,omitempty"`
}

func (p *Provisioner) remember(name string, f facts, req *csi.CreateVolumeRequest) error {
	p.mu.Lock()
	_, known := p.pending[name]
	p.mu.Unlock()
	if known {
		return nil
	}

	data, err := protojson.Marshal(req)
	if err != nil {
		return err
	}

	i := intent{
		Namespace: f.claim.Namespace,
		Claim:     f.claim.Name,
		UID:       string(f.claim.UID),
		Request:   data,
		Policy:    policyOf(f.class),
	}
	if err := p.intents.Put(name, i); err != nil {
		return fmt.Errorf("record that volume %s is being made: %w", name, err)
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	p.pending[name] = i
	return nil
}

func (p *Provisioner) forget(name string) error {
	p.mu.Lock()
	_, known := p.pending[name]
	p.mu.Unlock()
	if !known {
		return nil
	}
	if err := p.intents.Delete(name); err != nil {
		return fmt.Errorf("forget that volume %s was being made: %w", name, err)
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	delete(p.pending, name)
	return nil
}

// pendingOf lists what was begun for a claim ("" for all claims). A claim of the same name with another UID
// is another claim.
func (p *Provisioner) pendingOf(key string) map[string]intent {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := map[string]intent{}
	for name, i := range p.pending {
		if key == "" || key == i.Namespace+"/"+i.Claim {
			found[name] = i
		}
	}
	return found
}

// settleNowAndThen hands every pending intent to the worker of its claim, at start and every few minutes: one
// claim is never worked on twice at the same time.
func (p *Provisioner) settleNowAndThen(ctx context.Context) {
	ticker := time.NewTicker(settlePeriod)
	defer ticker.Stop()

	for {
		for _, i := range p.pendingOf("") {
			p.claimQueue.Add(i.Namespace + "/" + i.Claim)
		}

		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// settleBut ends what was begun for a claim that is not, or no longer, ours, but not what is about to go on.
func (p *Provisioner) settleBut(ctx context.Context, key string, f facts, d decision) error {
	var errs []error
	for name, i := range p.pendingOf(key) {
		if d.action == create && string(f.claim.UID) == i.UID {
			continue
		}
		if err := p.settle(ctx, name, i); err != nil {
			errs = append(errs, fmt.Errorf("settle volume %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// settle asks the API server itself, not the cache, whether the volume is wanted: it is about to be deleted.
func (p *Provisioner) settle(ctx context.Context, name string, i intent) error {
	_, err := p.cfg.Client.Volume(ctx, name)
	if err == nil {
		return p.forget(name)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}

	claim, err := p.cfg.Client.Claim(ctx, i.Namespace, i.Claim)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}

	wanted := err == nil && string(claim.UID) == i.UID && claim.DeletionTimestamp == nil &&
		claim.Annotations[annSelectedNode] == p.cfg.Node
	if wanted {
		// its own turn comes with the event that the cache has not seen yet
		return nil
	}

	if i.Policy == corev1.PersistentVolumeReclaimRetain {
		// Its object may have been there, and somebody's data with it: who wants retained volumes deletes
		// them by hand.
		p.cfg.Log.Warn("a volume that may have been made for nobody is retained",
			"claim", i.Namespace+"/"+i.Claim, "volume", name)
		return p.forget(name)
	}

	req := &csi.CreateVolumeRequest{}
	if err := protojson.Unmarshal(i.Request, req); err != nil {
		return err
	}

	resp, err := p.cfg.CSI.CreateVolume(ctx, req)
	if err != nil {
		if final(err) {
			// it could not be made, so there is nothing to delete
			return p.forget(name)
		}

		return err
	}

	if _, err := p.cfg.CSI.DeleteVolume(ctx, &csi.DeleteVolumeRequest{
		VolumeId: resp.GetVolume().GetVolumeId(),
	}); err != nil {
		return err
	}

	p.cfg.Log.Info("deleted a volume that was made for nobody",
		"claim", i.Namespace+"/"+i.Claim, "volume", name)
	return p.forget(name)
}
