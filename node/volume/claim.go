package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/nfsvolume"
)

// gidAnnotation is how an administrator says that a volume belongs to a group.
const gidAnnotation = "pv.beta.kubernetes.io/gid"

// claim mounts the volume that a claim is bound to.
func (m *Manager) claim(
	ctx context.Context,
	pod *v1.Pod,
	vol *v1.Volume,
	name string,
	readOnly bool,
) (Mounted, []int64, error) {
	claim, pv, err := m.bound(ctx, pod, vol, name)
	if err != nil {
		return Mounted{}, nil, err
	}

	block := pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == v1.PersistentVolumeBlock
	if err := checkUse(pod, vol.Name, block); err != nil {
		return Mounted{}, nil, err
	}

	readOnly = readOnly || readOnlyModes(pv.Spec.AccessModes) && readOnlyModes(claim.Spec.AccessModes)
	var groups []int64
	if text := pv.Annotations[gidAnnotation]; text != "" {
		gid, err := strconv.ParseInt(text, 10, 32)
		if err != nil || gid < 0 {
			return Mounted{}, nil, fmt.Errorf("persistentvolume %q: annotation %s: %q is not a group id",
				pv.Name, gidAnnotation, text)
		}

		groups = append(groups, gid)
	}

	path, err := m.persistent(ctx, CSIRequest{
		Pod:      pod,
		Name:     vol.Name,
		PV:       pv,
		Claim:    claim,
		ReadOnly: readOnly,
		Block:    block,
		FSGroup:  fsGroup(pod),
	})

	mounted := Mounted{Path: path, Block: block, ReadOnly: readOnly}
	if src := pv.Spec.CSI; src != nil {
		mounted.driver, mounted.persistent = src.Driver, true
	}

	return mounted, groups, err
}

// persistent mounts a persistent volume by its source.
func (m *Manager) persistent(ctx context.Context, r CSIRequest) (string, error) {
	src := &r.PV.Spec.PersistentVolumeSource
	switch {
	case src.CSI != nil:
		r.ReadOnly = r.ReadOnly || src.CSI.ReadOnly
		return m.csi(ctx, r)
	case src.NFS != nil && !r.Block:
		return m.nfs(ctx, r.Pod, r.PV.Name, nfsvolume.OfPersistent(r.PV, r.ReadOnly))
	case src.HostPath != nil && !r.Block:
		return src.HostPath.Path, checkHostPath(src.HostPath)
	case src.Local != nil:
		return m.local(ctx, r, src.Local)
	}

	return "", fmt.Errorf("persistentvolume %q: its type is not supported by this agent", r.PV.Name)
}

// bound reads the claim and its volume, and makes sure that they are bound to each other and meant for this
// pod.
func (m *Manager) bound(
	ctx context.Context,
	pod *v1.Pod,
	vol *v1.Volume,
	name string,
) (*v1.PersistentVolumeClaim, *v1.PersistentVolume, error) {
	claim, err := m.cfg.Objects.PersistentVolumeClaim(ctx, pod.Namespace, name)
	if err != nil {
		return nil, nil, fmt.Errorf("persistentvolumeclaim %q: %w", name, err)
	}

	switch {
	case vol.Ephemeral != nil && !metav1.IsControlledBy(claim, pod):
		return nil, nil, fmt.Errorf("persistentvolumeclaim %q was not created for pod %s/%s (the pod is "+
			"not its owner)", name, pod.Namespace, pod.Name)
	case claim.DeletionTimestamp != nil && vol.Ephemeral == nil && len(claim.Finalizers) == 0:
		return nil, nil, fmt.Errorf("persistentvolumeclaim %q is being deleted", name)
	case claim.Status.Phase != v1.ClaimBound || claim.Spec.VolumeName == "":
		return nil, nil, fmt.Errorf("persistentvolumeclaim %q is not bound", name)
	}

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

// checkUse refuses a file system where the pod wants a device, and the reverse.
func checkUse(pod *v1.Pod, volume string, block bool) error {
	mounts, devices := false, false
	add := func(m []v1.VolumeMount, d []v1.VolumeDevice) {
		mounts = mounts || slices.ContainsFunc(m, func(x v1.VolumeMount) bool { return x.Name == volume })
		devices = devices || slices.ContainsFunc(d, func(x v1.VolumeDevice) bool { return x.Name == volume })
	}

	for _, c := range pod.Spec.InitContainers {
		add(c.VolumeMounts, c.VolumeDevices)
	}

	for _, c := range pod.Spec.Containers {
		add(c.VolumeMounts, c.VolumeDevices)
	}

	switch {
	case block && mounts:
		return &Error{
			volume,
			"FailedMapVolume",
			errors.New("it has volumeMode Block, but is specified in volumeMounts"),
		}

	case !block && devices:
		return &Error{
			volume,
			"FailedMount",
			errors.New("it has volumeMode Filesystem, but is specified in volumeDevices"),
		}
	}

	return nil
}

func readOnlyModes(modes []v1.PersistentVolumeAccessMode) bool {
	return len(modes) > 0 &&
		!slices.ContainsFunc(
			modes,
			func(a v1.PersistentVolumeAccessMode) bool { return a != v1.ReadOnlyMany },
		)
}
