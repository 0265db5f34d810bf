package volume

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/node/inventory"
	"github.com/trivet-node/trivet/node/nfsvolume"
	"github.com/trivet-node/trivet/node/podspec"
)

// gidAnnotation is how an administrator says that a volume belongs to a group.
const gidAnnotation = "pv.beta.kubernetes.io/gid"

// claim mounts the volume that the claim of that name, in the pod's namespace, is bound to.
func (m *Mounter) claim(
	ctx context.Context,
	pod *v1.Pod,
	vol *v1.Volume,
	name string,
	readOnly bool,
) (Mounted, error) {
	claim, pv, err := m.bound(ctx, pod, vol, name)
	if err != nil {
		return Mounted{}, err
	}

	plugin := inventory.Plugin(vol, pv)
	block := ptr.Deref(pv.Spec.VolumeMode, v1.PersistentVolumeFilesystem) == v1.PersistentVolumeBlock
	if err := checkUse(pod, vol.Name, block); err != nil {
		return Mounted{plugin: plugin}, err
	}

	groups, err := groupsOf(pv)
	if err != nil {
		return Mounted{plugin: plugin}, err
	}

	// The pod, the claim with its volume, or the volume's source may ask for read-only.
	readOnly = readOnly || readOnlyModes(pv.Spec.AccessModes) && readOnlyModes(claim.Spec.AccessModes)
	provided, err := m.persistent(ctx, Request{
		Pod:      pod,
		Name:     vol.Name,
		PV:       pv,
		Claim:    claim,
		ReadOnly: readOnly,
		Block:    block,
		FSGroup:  podspec.FSGroup(pod),
	})

	return Mounted{
		Path:     provided.Path,
		Block:    block,
		ReadOnly: readOnly,
		groups:   groups,
		revisit:  provided.Revisit,
		plugin:   plugin,
	}, err
}

// groupsOf returns the supplemental groups that the volume asks for by its annotation.
func groupsOf(pv *v1.PersistentVolume) ([]int64, error) {
	text := pv.Annotations[gidAnnotation]
	if text == "" {
		return nil, nil
	}

	gid, err := strconv.ParseInt(text, 10, 32)
	if err != nil || gid < 0 {
		return nil, fmt.Errorf("persistentvolume %q: annotation %s: %q is not a group id",
			pv.Name, gidAnnotation, text)
	}
	return []int64{gid}, nil
}

// persistent mounts a persistent volume by its source.
func (m *Mounter) persistent(ctx context.Context, r Request) (Provided, error) {
	src := &r.PV.Spec.PersistentVolumeSource

	switch {
	case src.CSI != nil:
		r.ReadOnly = r.ReadOnly || src.CSI.ReadOnly
		return m.csi(ctx, r)
	case src.NFS != nil && !r.Block:
		path, err := m.nfs(ctx, r.Pod, r.PV.Name, nfsvolume.OfPersistent(r.PV, r.ReadOnly))
		return Provided{Path: path}, err
	case src.HostPath != nil && !r.Block:
		return Provided{Path: src.HostPath.Path}, checkHostPath(src.HostPath)
	case src.Local != nil:
		return m.local(ctx, r)
	}

	return Provided{}, fmt.Errorf("persistentvolume %q: its type is not supported by this agent", r.PV.Name)
}

// bound reads the claim and its volume, and makes sure that they are bound to each other and meant for this
// pod.
func (m *Mounter) bound(
	ctx context.Context,
	pod *v1.Pod,
	vol *v1.Volume,
	name string,
) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error) {
	claim, err := m.cfg.Objects.PersistentVolumeClaim(ctx, pod.Namespace, name)
	if err != nil {
		return nil, nil, fmt.Errorf("persistentvolumeclaim %q: %w", name, err)
	}
	if err := checkClaim(pod, vol, claim); err != nil {
		return nil, nil, err
	}

	// Both must name the other: a claim alone could name a volume that is bound to somebody else's.
	pv, err := m.cfg.Objects.PersistentVolume(ctx, claim.Spec.VolumeName)
	if err != nil {
		return nil, nil, fmt.Errorf("persistentvolume %q: %w", claim.Spec.VolumeName, err)
	}

	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
		return nil, nil, fmt.Errorf("persistentvolume %q is not bound to persistentvolumeclaim %q",
			pv.Name, name)
	}

	return claim, pv, nil
}

// checkClaim refuses a claim that the pod may not use, or not yet. A claim that is being deleted stays as
// long as its finalizer protects it, that is while pods use it.
func checkClaim(pod *v1.Pod, vol *v1.Volume, claim *v1.PersistentVolumeClaim) error {
	switch {
	case vol.Ephemeral != nil && !metav1.IsControlledBy(claim, pod):
		return fmt.Errorf("persistentvolumeclaim %q was not created for pod %s/%s (the pod is not its owner)",
			claim.Name, pod.Namespace, pod.Name)
	case claim.DeletionTimestamp != nil && vol.Ephemeral == nil && len(claim.Finalizers) == 0:
		return fmt.Errorf("persistentvolumeclaim %q is being deleted", claim.Name)
	case claim.Status.Phase != v1.ClaimBound || claim.Spec.VolumeName == "":
		return fmt.Errorf("persistentvolumeclaim %q is not bound", claim.Name)
	}
	return nil
}

// checkUse refuses a file system where the pod wants a device, and the reverse.
func checkUse(pod *v1.Pod, volume string, block bool) error {
	for c := range podspec.Regular(pod) {
		for _, mount := range c.VolumeMounts {
			if block && mount.Name == volume {
				err := errors.New("it has volumeMode Block, but is specified in volumeMounts")
				return Failed(volume, reasonMap, err)
			}
		}

		for _, device := range c.VolumeDevices {
			if !block && device.Name == volume {
				err := errors.New("it has volumeMode Filesystem, but is specified in volumeDevices")
				return Failed(volume, reasonMount, err)
			}
		}
	}

	return nil
}

// readOnlyModes reports whether reading is all that the access modes allow.
func readOnlyModes(modes []v1.PersistentVolumeAccessMode) bool {
	for _, mode := range modes {
		if mode != v1.ReadOnlyMany {
			return false
		}
	}
	return len(modes) > 0
}
