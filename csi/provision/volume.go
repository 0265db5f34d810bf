package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/objects"
)

// lookAtVolume keeps the object of a bound volume from being deleted unnoticed, and deletes a volume that was
// released under the Delete policy: first its content, then its object.
func (p *Provisioner) lookAtVolume(ctx context.Context, name string) error {
	pv := p.cfg.Objects.Volumes.Get(name)
	if pv == nil {
		return nil
	}

	switch dispose(p.cfg.Local, pv) {
	case protect:
		return p.patchFinalizers(ctx, pv, append(slices.Clone(pv.Finalizers), objects.Finalizer))
	case release:
		return p.removeFinalizer(ctx, pv)
	case destroy:
		return p.destroy(ctx, pv)
	case keep:
	}

	return nil
}

// destroy deletes content and object. It asks the API server itself, not the cache, whether the volume is to
// be deleted: that cannot be undone.
func (p *Provisioner) destroy(ctx context.Context, cached *corev1.PersistentVolume) error {
	pv, err := p.volumes.Get(ctx, "", cached.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read PersistentVolume %s: %w", cached.Name, err)
	}

	if pv.UID != cached.UID || dispose(p.cfg.Local, pv) != destroy {
		// The change comes as an event.
		return nil
	}

	if other := p.otherObject(pv); other != "" {
		return p.destroyObjectOnly(ctx, pv, other)
	}

	_, err = p.cfg.CSI.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle})
	if err != nil {
		p.volumeFailed(pv, "%v", err)
		return fmt.Errorf("delete volume %s: %w", pv.Spec.CSI.VolumeHandle, err)
	}

	// The finalizer first: once the object is being deleted, the controller-manager changes it, too. A
	// process that was killed in between repeats all this.
	if err := p.removeFinalizer(ctx, pv); err != nil {
		return err
	}

	err = p.volumes.Delete(ctx, "", pv.Name, onlyIf(pv.UID))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete PersistentVolume %s: %w", pv.Name, err)
	}

	p.cfg.Log.Info("deleted", "volume", pv.Name)
	return nil
}

// otherObject names another PersistentVolume with the same volume of this driver, "" if there is none.
// Anybody who may write PersistentVolumes can make one; it must not cost somebody else their data.
func (p *Provisioner) otherObject(pv *corev1.PersistentVolume) string {
	for _, other := range p.cfg.Objects.Volumes.By(pv.Spec.CSI.VolumeHandle) {
		if other.UID != pv.UID && other.Spec.CSI.Driver == p.cfg.Local.Driver {
			return other.Name
		}
	}
	return ""
}

// destroyObjectOnly lets an object be deleted, and leaves the volume to the other object that has it.
func (p *Provisioner) destroyObjectOnly(
	ctx context.Context,
	pv *corev1.PersistentVolume,
	other string,
) error {
	handle := pv.Spec.CSI.VolumeHandle
	p.volumeFailed(pv, "volume %s is kept: PersistentVolume %s has the same volume handle", handle, other)
	p.cfg.Log.Warn("volume is kept for another PersistentVolume",
		"volume", handle, "of", pv.Name, "other", other)
	if pv.DeletionTimestamp == nil {
		// The other one may be deleted.
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
	others := slices.DeleteFunc(slices.Clone(pv.Finalizers), func(f string) bool {
		return f == objects.Finalizer
	})
	return p.patchFinalizers(ctx, pv, others)
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

	_, err = p.volumes.Patch(ctx, "", pv.Name, types.MergePatchType, patch)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("set finalizers of PersistentVolume %s: %w", pv.Name, err)
	}

	return nil
}
