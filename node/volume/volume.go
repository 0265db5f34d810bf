// Package volume mounts and unmounts the volumes of pods below ROOT/pods/UID/volumes, in kubelet's layout.
//
// Setup may be repeated at any time and brings what is there up to date. Teardown works from what is on disk
// alone: it needs no memory of the pod, and cleans up after a crash or a reboot as well. It never deletes
// across a mount point.
package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/node/growth"
	"github.com/trivet-node/trivet/node/inventory"
	"github.com/trivet-node/trivet/node/localvolume"
	"github.com/trivet-node/trivet/node/nfsvolume"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/projection"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/token"
)

// Objects is where volumes and their contents are described (objects.Cache).
type Objects interface {
	projection.Objects
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error)
}

// CSI mounts volumes of CSI drivers (csivolume.Mounter).
type CSI interface {
	// Setup makes the volume available. With an error of reason ResizeFailed it is available nevertheless.
	Setup(ctx context.Context, request Request) (Provided, error)
	// Teardown unpublishes every CSI volume of the pod, from what is on disk.
	Teardown(ctx context.Context, pod types.UID) error
}

// Certificates has certificates issued for pods (podcertificate.Keeper).
type Certificates interface {
	projection.Certificates
	// Adopt goes on with what the volume in the directory shows, of an earlier agent.
	Adopt(pod *v1.Pod, volume *v1.Volume, dir, record string)
	// NextAt returns when a volume of the pod must be set up again, zero for never.
	NextAt(pod types.UID) time.Time
	Forget(pod types.UID)
}

// Provided is a persistent volume, or one of a CSI driver, that is available.
type Provided struct {
	// Path is the directory, or the device of a block volume.
	Path string

	// Revisit asks for another Setup after a while: the driver wants that (CSIDriver requiresRepublish), or
	// the node has a part in it when the claim gets a larger size. A node may not watch claims.
	Revisit bool
}

// Request is one volume of a pod that is persistent, or that a CSI driver provides.
type Request struct {
	Pod *v1.Pod

	// Name is the name of the volume in the pod.
	Name string

	// PV and Claim are those of a persistent volume, otherwise nil.
	PV    *v1.PersistentVolume
	Claim *v1.PersistentVolumeClaim

	// Inline is the source of a CSI driver's ephemeral volume, otherwise nil.
	Inline *v1.CSIVolumeSource

	ReadOnly bool

	// Block asks for a device in place of a file system.
	Block bool

	// FSGroup is the group that the volume is given to, nil if the pod names none.
	FSGroup *int64
}

// Config is what a Mounter needs.
type Config struct {
	// Root is kubelet's root directory, /var/lib/kubelet.
	Root    string
	Node    podenv.Node
	Objects Objects
	Tokens  token.Issuer

	// Certificates may be nil: podCertificate sources are refused then.
	Certificates Certificates

	// CSI may be nil: volumes of CSI drivers are refused then.
	CSI CSI

	// Claims records that claims of local volumes have grown; nil records nothing.
	Claims growth.Claims

	// NFS is nil for the node's mount(8).
	NFS *nfsvolume.Mounter
	Log *slog.Logger

	// Mounted is told about each attempt of a plugin to mount a volume or bring it up to date. It may be nil.
	Mounted func(plugin string, took time.Duration, err error)
}

// Mounter mounts the volumes of this node's pods.
type Mounter struct {
	cfg       Config
	dirs      layout
	locks     keylock.Locks[types.UID]
	tokens    *token.Cache
	projector projection.Projector
	locals    *localvolume.Mounter
	present   inventory.Inventory
}

// New returns a mounter. It touches nothing yet.
func New(cfg Config) *Mounter {
	if cfg.NFS == nil {
		cfg.NFS = &nfsvolume.Mounter{}
	}

	if cfg.Mounted == nil {
		cfg.Mounted = func(string, time.Duration, error) {}
	}

	tokens := token.NewCache(cfg.Tokens, cfg.Log)
	return &Mounter{
		cfg:    cfg,
		dirs:   layout{cfg.Root},
		tokens: tokens,
		locals: localvolume.New(cfg.Root),
		projector: projection.Projector{
			Objects:      cfg.Objects,
			Tokens:       tokens,
			Certificates: cfg.Certificates,
			Node:         cfg.Node,
		},
	}
}

// Mounted is one volume of a pod that is ready for containers.
type Mounted struct {
	// Path is a directory, file, or device on the node; empty for an image volume.
	Path string

	// Block reports whether Path is a block device.
	Block bool

	// ReadOnly holds whatever the mount of a container says.
	ReadOnly bool

	// Image is set for an image volume, which the runtime mounts.
	Image *v1.ImageVolumeSource

	groups  []int64
	revisit bool

	// plugin mounts the volume of a claim, also one that could not be mounted.
	plugin string
}

// Volumes are the mounted volumes of a pod.
type Volumes struct {
	ByName map[string]Mounted

	// Groups are supplemental groups that persistent volumes ask for (pv.beta.kubernetes.io/gid).
	Groups []int64

	// Ungrown are volumes that could not be made larger (ResizeFailed); the pod can use them as they are.
	Ungrown []*reason.Error

	// SetUpAgain is when Setup must be called again, to renew a service account token or a certificate, or
	// for a driver that wants it; zero for never.
	SetUpAgain time.Time
}

// Cover reports whether every volume that a container of the pod uses is mounted. Nil covers nothing: the pod
// was never set up.
func (v *Volumes) Cover(pod *v1.Pod) bool {
	if v == nil {
		return false
	}

	used := usedVolumes(pod)
	return !slices.ContainsFunc(pod.Spec.Volumes, func(vol v1.Volume) bool {
		_, mounted := v.ByName[vol.Name]
		return used[vol.Name] && !mounted
	})
}

// Setup mounts the volumes that the pod's containers use, all at the same time, or brings them up to date.
// The error joins one *reason.Error for each volume that failed. What was mounted stays, also after an error,
// until Teardown; Setup is repeated for the rest.
func (m *Mounter) Setup(ctx context.Context, pod *v1.Pod) (*Volumes, error) {
	unlock, err := m.locks.Lock(ctx, pod.UID)
	if err != nil {
		return nil, fmt.Errorf("set up volumes of pod %s: %w", pod.UID, err)
	}
	defer unlock()

	if err := os.MkdirAll(m.dirs.volumes(pod.UID), 0o750); err != nil {
		return nil, fmt.Errorf("make volume directory: %w", err)
	}

	volumes := &Volumes{ByName: map[string]Mounted{}}
	err = m.mountUsed(ctx, pod, volumes)
	volumes.SetUpAgain = m.setUpAgain(pod, volumes)
	return volumes, err
}

// Present are the volumes of all pods that this agent was to mount, and not yet to unmount.
func (m *Mounter) Present() *inventory.Inventory { return &m.present }

// mountUsed mounts the volumes that containers use, and enters them into volumes.
func (m *Mounter) mountUsed(ctx context.Context, pod *v1.Pod, volumes *Volumes) error {
	// mu guards volumes and errs.
	var mu sync.Mutex
	var errs []error
	var running sync.WaitGroup

	used := usedVolumes(pod)
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if !used[vol.Name] {
			continue
		}

		running.Go(func() {
			began := time.Now()
			mounted, err := m.mount(ctx, pod, vol)
			failure := failed(vol.Name, err)

			// A volume that did not grow is mounted nevertheless.
			ungrown := failure != nil && failure.Reason == ResizeFailed
			plugin := cmp.Or(mounted.plugin, m.present.PluginOf(pod.UID, vol))
			m.cfg.Mounted(plugin, time.Since(began), err)
			m.present.Enter(pod.UID, vol.Name, plugin, failure == nil || ungrown)

			mu.Lock()
			defer mu.Unlock()

			switch {
			case ungrown:
				volumes.Ungrown = append(volumes.Ungrown, failure)
			case failure != nil:
				errs = append(errs, failure)
				return
			}

			volumes.ByName[vol.Name] = mounted
			volumes.Groups = append(volumes.Groups, mounted.groups...)
		})
	}

	running.Wait()
	return errors.Join(errs...)
}

// revisitAfter is the interval at which volumes are set up that must be visited periodically: about that of
// kubelet.
const revisitAfter = time.Minute

// setUpAgain returns when the first token or certificate is due for renewal or a volume must be visited, zero
// for never.
func (m *Mounter) setUpAgain(pod *v1.Pod, volumes *Volumes) time.Time {
	revisit := false
	for _, mounted := range volumes.ByName {
		revisit = revisit || mounted.revisit
	}

	at := m.tokens.RenewAt(pod.UID)
	if m.cfg.Certificates != nil {
		at = earlier(at, m.cfg.Certificates.NextAt(pod.UID))
	}
	if revisit {
		at = earlier(at, time.Now().Add(revisitAfter))
	}
	return at
}

// earlier is the first of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// mount mounts one volume by its type.
func (m *Mounter) mount(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (Mounted, error) {
	src := &vol.VolumeSource
	switch {
	case src.EmptyDir != nil:
		path, err := m.emptyDir(ctx, pod, vol)
		return Mounted{Path: path}, err
	case src.HostPath != nil:
		return Mounted{Path: src.HostPath.Path}, checkHostPath(src.HostPath)
	case src.ConfigMap != nil, src.Secret != nil, src.DownwardAPI != nil, src.Projected != nil:
		path, err := m.content(ctx, pod, vol)
		return Mounted{Path: path, ReadOnly: true}, err
	case src.Image != nil:
		return Mounted{Image: src.Image, ReadOnly: true}, nil
	case src.CSI != nil:
		return m.inline(ctx, pod, vol)
	case src.NFS != nil:
		path, err := m.nfs(ctx, pod, vol.Name, nfsvolume.OfVolume(src.NFS))
		return Mounted{Path: path, ReadOnly: src.NFS.ReadOnly}, err
	case src.PersistentVolumeClaim != nil:
		return m.claim(ctx, pod, vol, src.PersistentVolumeClaim.ClaimName, src.PersistentVolumeClaim.ReadOnly)
	case src.Ephemeral != nil:
		return m.claim(ctx, pod, vol, pod.Name+"-"+vol.Name, false)
	}

	return Mounted{}, errors.New("its type is not supported by this agent (in-tree drivers have CSI " +
		"drivers in their place)")
}

// inline mounts an ephemeral volume of a CSI driver, which lives as long as the pod.
func (m *Mounter) inline(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (Mounted, error) {
	readOnly := ptr.Deref(vol.CSI.ReadOnly, false)
	provided, err := m.csi(ctx, Request{
		Pod:      pod,
		Name:     vol.Name,
		Inline:   vol.CSI,
		ReadOnly: readOnly,
		FSGroup:  podspec.FSGroup(pod),
	})

	return Mounted{
		Path:     provided.Path,
		ReadOnly: readOnly,
		revisit:  provided.Revisit,
	}, err
}

// nfs mounts an export for the volume of that name and returns the directory.
func (m *Mounter) nfs(
	ctx context.Context,
	pod *v1.Pod,
	name string,
	export nfsvolume.Export,
) (string, error) {
	dir := m.dirs.volume(pod.UID, nfsvolume.Plugin, name)
	return dir, m.cfg.NFS.Mount(ctx, export, dir)
}

// csi passes a request on, where the node has CSI.
func (m *Mounter) csi(ctx context.Context, r Request) (Provided, error) {
	if m.cfg.CSI == nil {
		return Provided{}, errors.New("CSI volumes are not available on this node")
	}
	return m.cfg.CSI.Setup(ctx, r)
}

// usedVolumes returns the names of the volumes that a container mounts or reads an env file from. Others are
// not mounted, so that an image or a claim that no container uses costs nothing and holds up nothing.
func usedVolumes(pod *v1.Pod) map[string]bool {
	used := map[string]bool{}
	for c := range podspec.All(pod) {
		for _, mount := range c.VolumeMounts {
			used[mount.Name] = true
		}

		for _, device := range c.VolumeDevices {
			used[device.Name] = true
		}

		for _, env := range c.Env {
			if env.ValueFrom != nil && env.ValueFrom.FileKeyRef != nil {
				used[env.ValueFrom.FileKeyRef.VolumeName] = true
			}
		}
	}

	return used
}
