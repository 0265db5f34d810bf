// Package volume mounts and unmounts the volumes of pods below ROOT/pods/UID/volumes, in kubelet's layout.
// Setup may be repeated at any time and brings what is there up to date; Teardown works from what is on disk
// alone, so it needs no memory of the pod and cleans up after a crash or a reboot as well. It never deletes
// across a mount point.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/node/nfsvolume"
	"github.com/trivet-node/trivet/node/podenv"
)

// Objects is where the contents of volumes come from (objects.Cache).
type Objects interface {
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error)
	ClusterTrustBundle(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error)
	ClusterTrustBundles(
		ctx context.Context,
		signer string,
		selector labels.Selector,
	) ([]certificatesv1.ClusterTrustBundle, error)
}

// Tokens issues service account tokens (TokenIssuer).
type Tokens interface {
	Token(
		ctx context.Context,
		namespace, serviceAccount string,
		spec authenticationv1.TokenRequestSpec,
	) (*authenticationv1.TokenRequest, error)
}

// CSI mounts volumes of CSI drivers (csivolume.Mounter).
type CSI interface {
	// Setup makes the volume available and returns the directory, or the device for a block volume. With a
	// *Error of reason ResizeFailed it is available nevertheless.
	Setup(ctx context.Context, request CSIRequest) (path string, err error)
	// Revisits reports whether Setup is to be called again and again: the driver wants that (CSIDriver
	// requiresRepublish), or it grows file systems on the node and the claim may have been given a larger
	// size. (A node may not watch claims.)
	Revisits(ctx context.Context, driver string, persistent bool) bool
	// Teardown unpublishes and, when no other pod needs it, unstages every CSI volume of the pod, from what
	// is on disk.
	Teardown(ctx context.Context, pod types.UID) error
}

// CSIRequest is one CSI volume of a pod: PV for a claim's volume, Inline for an ephemeral one.
type CSIRequest struct {
	Pod      *v1.Pod
	Name     string // of the volume in the pod
	PV       *v1.PersistentVolume
	Claim    *v1.PersistentVolumeClaim
	Inline   *v1.CSIVolumeSource
	ReadOnly bool
	Block    bool
	FSGroup  *int64
}

// Config is what a Manager needs.
type Config struct {
	Root    string // kubelet's root directory, /var/lib/kubelet
	Node    func() podenv.Node
	Objects Objects
	Tokens  Tokens
	CSI     CSI                // nil: CSI volumes are refused
	NFS     *nfsvolume.Mounter // nil: with the node's mount(8)
	Log     *slog.Logger
}

// Manager owns the volumes of this node's pods.
type Manager struct {
	cfg    Config
	locks  keylock.Locks[types.UID]
	tokens tokenCache

	mu      sync.Mutex // guards what follows
	refresh map[types.UID]time.Time
}

// revisitAfter is how long a volume is left alone that is to be set up again and again: about kubelet's
// resync.
const revisitAfter = time.Minute

// New returns a manager. It touches nothing yet.
func New(cfg Config) *Manager {
	if cfg.NFS == nil {
		cfg.NFS = &nfsvolume.Mounter{}
	}
	return &Manager{
		cfg:     cfg,
		tokens:  tokenCache{tokens: map[tokenKey]token{}},
		refresh: map[types.UID]time.Time{},
	}
}

// Mounted is one volume of a pod that is ready for containers.
type Mounted struct {
	Path     string                // directory, file, or device on the node; empty for an image volume
	Block    bool                  // Path is a block device
	ReadOnly bool                  // whatever the container's mount says
	Image    *v1.ImageVolumeSource // the runtime mounts it

	driver     string // of a CSI volume
	persistent bool   // it is a claim's
}

// Volumes are the mounted volumes of a pod.
type Volumes struct {
	ByName  map[string]Mounted
	Groups  []int64  // supplemental groups that persistent volumes ask for (pv.beta.kubernetes.io/gid)
	Ungrown []*Error // volumes that could not be made larger (ResizeFailed); the pod can use them as they are
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

// ResizeFailed is the reason of a volume that is there, but not as large as it should be.
const ResizeFailed = "VolumeResizeFailed"

// Error is a volume that cannot be mounted. Reason is kubelet's event reason: FailedMount,
// FailedAttachVolume, FailedMapVolume or ResizeFailed.
type Error struct {
	Volume string
	Reason string
	Err    error
}

func (e *Error) Error() string {
	switch e.Reason {
	case "FailedMount":
		return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
	case ResizeFailed:
		return fmt.Sprintf("NodeExpandVolume failed for volume %q : %v", e.Volume, e.Err)
	}
	return fmt.Sprintf("volume %q : %v", e.Volume, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Setup mounts the volumes of the pod that its containers use, all at once, or brings them up to date. On an
// error, which joins one *Error for each volume that failed, call it again: what was mounted stays. A pod
// that must not exist (any more) needs Teardown.
func (m *Manager) Setup(ctx context.Context, pod *v1.Pod) (*Volumes, error) {
	unlock, err := m.locks.Lock(ctx, pod.UID)
	if err != nil {
		return nil, fmt.Errorf("set up volumes of pod %s: %w", pod.UID, err)
	}
	defer unlock()

	if err := os.MkdirAll(m.volumesDir(pod.UID), 0o750); err != nil {
		return nil, fmt.Errorf("make volume directory: %w", err)
	}

	used := usedVolumes(pod)
	out := &Volumes{ByName: map[string]Mounted{}}
	var (
		mu      sync.Mutex
		errs    []error
		running sync.WaitGroup
	)

	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if !used[vol.Name] {
			continue
		}

		running.Go(func() {
			mounted, groups, err := m.setupOne(ctx, pod, vol)
			mu.Lock()
			defer mu.Unlock()

			if e := asError(vol.Name, err); e != nil && e.Reason == ResizeFailed {
				out.Ungrown = append(out.Ungrown, e)
			} else if e != nil {
				errs = append(errs, e)
				return
			}

			out.ByName[vol.Name] = mounted
			out.Groups = append(out.Groups, groups...)
		})
	}

	running.Wait()
	m.setRefresh(pod, trusts(pod) || m.revisits(ctx, out))
	return out, errors.Join(errs...)
}

// revisits reports whether one of the volumes is to be set up again after a while.
func (m *Manager) revisits(ctx context.Context, mounted *Volumes) bool {
	for _, v := range mounted.ByName {
		if v.driver != "" && m.cfg.CSI.Revisits(ctx, v.driver, v.persistent) {
			return true
		}
	}
	return false
}

// trusts reports whether a volume shows trust bundles. They are not watched but read again after a while: few
// pods have them, and they change rarely.
func trusts(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		return v.Projected != nil &&
			slices.ContainsFunc(
				v.Projected.Sources,
				func(s v1.VolumeProjection) bool { return s.ClusterTrustBundle != nil },
			)
	})
}

// Refresh is when Setup must be called again, to renew a service account token or for a driver that wants it;
// zero for never.
func (m *Manager) Refresh(pod types.UID) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refresh[pod]
}

func (m *Manager) setRefresh(pod *v1.Pod, soon bool) {
	at := m.tokens.refreshAt(pod.UID)
	if again := time.Now().Add(revisitAfter); soon && (at.IsZero() || again.Before(at)) {
		at = again
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if at.IsZero() {
		delete(m.refresh, pod.UID)
		return
	}
	m.refresh[pod.UID] = at
}

func asError(volume string, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Volume: volume, Reason: "FailedMount", Err: err}
}

// setupOne mounts one volume.
func (m *Manager) setupOne(ctx context.Context, pod *v1.Pod, vol *v1.Volume) (Mounted, []int64, error) {
	src := &vol.VolumeSource
	switch {
	case src.EmptyDir != nil:
		path, err := m.emptyDir(ctx, pod, vol)
		return Mounted{Path: path}, nil, err
	case src.HostPath != nil:
		return Mounted{Path: src.HostPath.Path}, nil, checkHostPath(src.HostPath)
	case src.ConfigMap != nil, src.Secret != nil, src.DownwardAPI != nil, src.Projected != nil:
		path, err := m.content(ctx, pod, vol)
		return Mounted{Path: path, ReadOnly: true}, nil, err
	case src.Image != nil:
		return Mounted{Image: src.Image, ReadOnly: true}, nil, nil
	case src.CSI != nil:
		readOnly := src.CSI.ReadOnly != nil && *src.CSI.ReadOnly
		path, err := m.csi(ctx, CSIRequest{
			Pod:      pod,
			Name:     vol.Name,
			Inline:   src.CSI,
			ReadOnly: readOnly,
			FSGroup:  fsGroup(pod),
		})

		return Mounted{Path: path, ReadOnly: readOnly, driver: src.CSI.Driver}, nil, err

	case src.NFS != nil:
		path, err := m.nfs(ctx, pod, vol.Name, nfsvolume.OfVolume(src.NFS))
		return Mounted{Path: path, ReadOnly: src.NFS.ReadOnly}, nil, err
	case src.PersistentVolumeClaim != nil:
		return m.claim(ctx, pod, vol, src.PersistentVolumeClaim.ClaimName, src.PersistentVolumeClaim.ReadOnly)
	case src.Ephemeral != nil:
		return m.claim(ctx, pod, vol, pod.Name+"-"+vol.Name, false)
	}

	return Mounted{}, nil, errors.New("its type is not supported by this agent (in-tree drivers have CSI " +
		"drivers in their place)")
}

func (m *Manager) nfs(
	ctx context.Context, pod *v1.Pod, name string, export nfsvolume.Export,
) (string, error) {
	dir := m.volumeDir(pod.UID, nfsvolume.Plugin, name)
	return dir, m.cfg.NFS.Mount(ctx, export, dir)
}

func (m *Manager) csi(ctx context.Context, r CSIRequest) (string, error) {
	if m.cfg.CSI == nil {
		return "", errors.New("CSI volumes are not available on this node")
	}
	return m.cfg.CSI.Setup(ctx, r)
}

// usedVolumes are those that a container mounts. An image volume or claim that nobody mounts costs nothing.
func usedVolumes(pod *v1.Pod) map[string]bool {
	used := map[string]bool{}
	add := func(mounts []v1.VolumeMount, devices []v1.VolumeDevice, env []v1.EnvVar) {
		for _, x := range mounts {
			used[x.Name] = true
		}

		for _, x := range devices {
			used[x.Name] = true
		}

		for _, x := range env {
			if x.ValueFrom != nil && x.ValueFrom.FileKeyRef != nil {
				used[x.ValueFrom.FileKeyRef.VolumeName] = true
			}
		}
	}

	for _, c := range pod.Spec.InitContainers {
		add(c.VolumeMounts, c.VolumeDevices, c.Env)
	}

	for _, c := range pod.Spec.Containers {
		add(c.VolumeMounts, c.VolumeDevices, c.Env)
	}

	for _, c := range pod.Spec.EphemeralContainers {
		add(c.VolumeMounts, c.VolumeDevices, c.Env)
	}

	return used
}

func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// The layout, as kubelet's.

func (m *Manager) podDir(uid types.UID) string     { return filepath.Join(m.cfg.Root, "pods", string(uid)) }
func (m *Manager) volumesDir(uid types.UID) string { return filepath.Join(m.podDir(uid), "volumes") }
func (m *Manager) volumeDir(uid types.UID, plugin, name string) string {
	return filepath.Join(m.volumesDir(uid), plugin, name)
}
func (m *Manager) subpathsDir(uid types.UID) string {
	return filepath.Join(m.podDir(uid), "volume-subpaths")
}
