package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// syncVolume sees to it that the object of a bound volume does not go unnoticed, and deletes a volume that
// was released under the Delete policy: first its content, then its object.
func (p *Provisioner) syncVolume(ctx context.Context, name string) error {
	pv := p.volumes.Get(name)
	if pv == nil {
		return nil
	}

	switch dispose(pv, p.cfg.Driver, p.cfg.TopologyKey, p.cfg.Node) {
	case mark:
		return p.patchFinalizers(ctx, pv, append(slices.Clone(pv.Finalizers), finalizer))
	case letGo:
		return p.removeFinalizer(ctx, pv)
	case destroy:
		return p.destroy(ctx, pv)
	case keep:
	}

	return nil
}

// destroy asks the API server itself, not the cache, whether the volume is to be deleted: that cannot be
// undone.
func (p *Provisioner) destroy(ctx context.Context, cached *corev1.PersistentVolume) error {
	pv, err := p.cfg.Client.Volume(ctx, cached.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read PersistentVolume %s: %w", cached.Name, err)
	}

	if pv.UID != cached.UID || dispose(pv, p.cfg.Driver, p.cfg.TopologyKey, p.cfg.Node) != destroy {
		// the change comes as an event
		return nil
	}

	if other := p.otherWith(pv); other != "" {
		return p.destroyObjectOnly(ctx, pv, other)
	}

	_, err = p.cfg.CSI.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle})
	if err != nil {
		p.events.volume(pv, corev1.EventTypeWarning, "VolumeFailedDelete", "%v", err)
		return fmt.Errorf("delete volume %s: %w", pv.Spec.CSI.VolumeHandle, err)
	}

	// The finalizer first: once the object is being deleted, the controller-manager changes it, too. Killed
	// in between, all this is repeated.
	if err := p.removeFinalizer(ctx, pv); err != nil {
		return err
	}

	err = p.cfg.Client.DeleteVolume(ctx, pv.Name, pv.UID)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete PersistentVolume %s: %w", pv.Name, err)
	}

	p.cfg.Log.Info("deleted", "volume", pv.Name)
	return nil
}

// otherWith names another PersistentVolume with the same volume of ours, "" if there is none. An object may
// be written by whoever may write objects; it must not cost somebody else his data.
func (p *Provisioner) otherWith(pv *corev1.PersistentVolume) string {
	for _, other := range p.volumes.By(pv.Spec.CSI.VolumeHandle) {
		if other.UID != pv.UID && other.Spec.CSI.Driver == p.cfg.Driver {
			return other.Name
		}
	}
	return ""
}

// destroyObjectOnly lets an object go that somebody has deleted, and leaves the volume to the other one that
// has it.
func (p *Provisioner) destroyObjectOnly(
	ctx context.Context,
	pv *corev1.PersistentVolume,
	other string,
) error {
	p.events.volume(pv, corev1.EventTypeWarning, "VolumeFailedDelete",
		"volume %s is kept: PersistentVolume %s has the same volume handle", pv.Spec.CSI.VolumeHandle, other)
	p.cfg.Log.Warn("volume is kept for another PersistentVolume",
		"volume", pv.Spec.CSI.VolumeHandle, "of", pv.Name, "other", other)
	if pv.DeletionTimestamp == nil {
		// the other one may go
		p.volumeQueue.AddAfter(pv.Name, lookAgain)
		return nil
	}
	return p.removeFinalizer(ctx, pv)
}

// removeFinalizer takes our finalizer off the very version whose list of finalizers was read; after a
// conflict it is tried again.
func (p *Provisioner) removeFinalizer(ctx context.Context, pv *corev1.PersistentVolume) error {
	if !hasFinalizer(pv) {
		return nil
	}
	ours := func(f string) bool { return f == finalizer }
	return p.patchFinalizers(ctx, pv, slices.DeleteFunc(slices.Clone(pv.Finalizers), ours))
}

func (p *Provisioner) patchFinalizers(ctx context.Context, pv *corev1.PersistentVolume, all []string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             pv.UID,
		"resourceVersion": pv.ResourceVersion,
		"finalizers":      all,
	}})
	if err != nil {
		return err
	}

	err = p.cfg.Client.PatchVolume(ctx, pv.Name, patch)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("set finalizers of PersistentVolume %s: %w", pv.Name, err)
	}

	return nil
}
