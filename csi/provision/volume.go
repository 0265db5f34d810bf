package provision

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// syncVolume deletes a volume that was released under the Delete policy: first its content, then its object.
func (p *Provisioner) syncVolume(ctx context.Context, name string) error {
	pv := p.volumes.Get(name)
	if pv == nil {
		return nil
	}
	switch dispose(pv, p.cfg.Driver, p.cfg.TopologyKey, p.cfg.Node) {
	case letGo:
		return p.removeFinalizer(ctx, pv)
	case destroy:
		return p.destroy(ctx, pv)
	case keep:
	}
	return nil
}

func (p *Provisioner) destroy(ctx context.Context, pv *corev1.PersistentVolume) error {
	_, err := p.cfg.CSI.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: pv.Spec.CSI.VolumeHandle})
	if err != nil {
		p.events.volume(pv, corev1.EventTypeWarning, "VolumeFailedDelete", "%v", err)
		return fmt.Errorf("delete volume %s: %w", pv.Spec.CSI.VolumeHandle, err)
	}
	// The finalizer first: once the object is being deleted, the controller-manager changes it, too. Killed in between, all this is repeated.
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

// removeFinalizer takes our finalizer off the very version whose list of finalizers was read; after a conflict it is tried again.
func (p *Provisioner) removeFinalizer(ctx context.Context, pv *corev1.PersistentVolume) error {
	if !hasFinalizer(pv) {
		return nil
	}
	others := []string{}
	for _, f := range pv.Finalizers {
		if f != finalizer {
			others = append(others, f)
		}
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pv.UID, "resourceVersion": pv.ResourceVersion, "finalizers": others}})
	if err != nil {
		return err
	}
	err = p.cfg.Client.PatchVolume(ctx, pv.Name, patch)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove finalizer of PersistentVolume %s: %w", pv.Name, err)
	}
	return nil
}
