// Package csivolume makes the volumes of CSI drivers available to pods. Setup waits for the attachment where
// the driver needs one, stages the volume once for the node, publishes it to the pod and gives it to the
// fsGroup; Teardown takes it from the pod, and Run from the node when no pod has it. Before a driver is
// called, kubelet's vol_data.json beside the mount says so: both work from the disk alone, after a crash, a
// reboot, or a change from kubelet.
package csivolume

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/trivet-node/trivet/internal/bootid"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
	"github.com/trivet-node/trivet/node/csivolume/staging"
	"github.com/trivet-node/trivet/node/growth"
	"github.com/trivet-node/trivet/node/token"
	"github.com/trivet-node/trivet/node/volume"
)

// rpcTimeout bounds one call of a driver, as kubelet does.
const rpcTimeout = 2 * time.Minute

// attachWait is how long one Setup waits for an attachment: it holds the pod's volumes, and the pod may be
// deleted meanwhile. The caller tries again.
const attachWait = 10 * time.Second

// ephemeral is the lifecycle of a volume that is its pod's own: it is not staged.
const ephemeral = storagev1.VolumeLifecycleEphemeral

// Objects is what is read from the API server (objects.Cache).
type Objects interface {
	// NeedsAttach reports whether volumes of a driver are attached, and whether that is known.
	NeedsAttach(driver string) (needs, known bool)

	CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	VolumeAttachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Drivers finds registered drivers (csiplugin.Registry).
type Drivers interface {
	Driver(name string) (*csiplugin.Driver, error)
}

// Nodes reads this node's Node from the API server.
type Nodes interface {
	Get(ctx context.Context, namespace, name string) (*v1.Node, error)
}

// Config is what a Mounter needs.
type Config struct {
	// Root is kubelet's root directory.
	Root string

	// Node is the node's name.
	Node    string
	Nodes   Nodes
	Objects Objects
	Drivers Drivers
	Tokens  token.Issuer

	// InUse has the attachable volumes, which the Node shows.
	InUse *inuse.Volumes
	Log   *slog.Logger

	// Claims records in the API that claims have grown; nil records nothing.
	Claims growth.Claims
}

// Mounter is the volume.CSI of a real node.
type Mounter struct {
	cfg  Config
	dirs layout

	// boot is the ID of the present boot. Records of another one describe mounts that are gone.
	boot string

	unstager *staging.Unstager
	stats    *statistics
}

// New returns a mounter that knows what is there of an earlier agent. It fails if the node's boot ID or its
// directories cannot be read.
func New(cfg Config) (*Mounter, error) {
	boot, err := bootid.Read()
	if err != nil {
		return nil, err
	}

	m := &Mounter{
		cfg:   cfg,
		dirs:  layout{cfg.Root},
		boot:  boot,
		stats: newStatistics(),
	}
	m.unstager = staging.New(staging.Config{
		Drivers:  cfg.Drivers,
		Used:     m.dirs.used,
		Unstaged: func(p staging.Place) { cfg.InUse.Release(p.Path) },
		Log:      cfg.Log,
	})
	return m, m.adopt()
}

// adopt enters what an earlier agent or kubelet has left: volumes that are in use, of pods or staged, and
// those that are staged for nobody, which are to be unstaged. What cannot be read may be any of the volumes
// that the Node shows.
func (m *Mounter) adopt() error {
	staged, unread, err := staging.List(m.cfg.Root)
	if err != nil {
		return err
	}
	for _, err := range unread {
		m.cfg.Log.Warn("volume may stay staged", "err", err)
	}

	all := len(unread) == 0
	published, err := m.dirs.ofPods(func(pod, spec string, err error) {
		all = false
		m.cfg.Log.Warn("volume of a pod is not known", "pod", pod, "volume", spec, "err", err)
	})
	if err != nil {
		return err
	}

	used := map[string]bool{}
	for _, p := range published {
		used[p.staging.Path] = true
		if p.Lifecycle != string(ephemeral) {
			m.cfg.InUse.Hold(p.Driver, p.Handle, string(p.pod))
		}
	}

	for _, s := range staged {
		m.cfg.InUse.Hold(s.Driver, s.Handle, s.Path)
		if !used[s.Path] {
			m.unstager.Look(s)
		}
	}

	m.cfg.InUse.Begin(m.cfg.Objects.NeedsAttach, all)
	return nil
}

// Run unstages volumes that no pod has any more, until ctx ends.
func (m *Mounter) Run(ctx context.Context) { m.unstager.Run(ctx) }

// DriversChanged says that a driver has come or gone.
func (m *Mounter) DriversChanged() { m.unstager.DriversChanged() }

// call is one Setup: a volume on its way to a pod.
type call struct {
	volume.Request
	driver *csiplugin.Driver

	// policy is the spec of the CSIDriver object, defaults filled in.
	policy storagev1.CSIDriverSpec
	handle string
	place  place

	// context is the metadata of the attachment, which the driver gets as publish context.
	context map[string]string
}

// Setup makes the volume available: attached, staged, published, given to the fsGroup and as large as its
// claim. It is repeated to repair what failed or is gone, and does nothing to what is there. With an error of
// reason volume.ResizeFailed the volume is available in its old size.
func (m *Mounter) Setup(ctx context.Context, r volume.Request) (volume.Provided, error) {
	c, err := m.prepare(ctx, r)
	if err != nil {
		return volume.Provided{}, err
	}
	if err := m.mount(ctx, c); err != nil {
		return volume.Provided{}, err
	}

	provided := volume.Provided{Path: c.place.target, Revisit: c.revisit()}
	if err := m.grow(ctx, c); err != nil {
		return provided, volume.Failed(c.Name, volume.ResizeFailed, err)
	}

	return provided, nil
}

// revisit reports whether the volume is to be set up periodically: its driver wants that, or it may have to
// grow.
func (c *call) revisit() bool {
	grows := c.PV != nil && c.driver.Can(csi.NodeServiceCapability_RPC_EXPAND_VOLUME)
	return grows || ptr.Deref(c.policy.RequiresRepublish, false)
}

// mount brings the volume to its target. Where that is done it does nothing, unless the driver wants to be
// called again.
func (m *Mounter) mount(ctx context.Context, c *call) error {
	done, err := c.place.done(m.boot)
	if err != nil {
		return err
	}
	if done && !ptr.Deref(c.policy.RequiresRepublish, false) {
		return nil
	}

	if err := m.attached(ctx, c); err != nil {
		return volume.Failed(c.Name, "FailedAttachVolume", err)
	}
	if err := m.stage(ctx, c); err != nil {
		return err
	}
	if err := m.publish(ctx, c); err != nil {
		return err
	}
	if err := m.giveToGroup(ctx, c); err != nil {
		return err
	}

	return c.place.finish(m.boot)
}

// prepare finds the driver and what the cluster says about it.
func (m *Mounter) prepare(ctx context.Context, r volume.Request) (*call, error) {
	c := &call{Request: r}
	driver, spec, lifecycle := c.describe()

	var err error
	if c.policy, err = m.policy(ctx, driver); err != nil {
		return nil, err
	}
	if err := checkLifecycle(c.policy, driver, lifecycle); err != nil {
		return nil, err
	}
	if c.driver, err = m.cfg.Drivers.Driver(driver); err != nil {
		return nil, err
	}

	c.place = m.dirs.place(r.Pod.UID, spec, driver, c.handle, r.Block)
	c.place.Lifecycle = string(lifecycle)
	c.place.Volume = r.Name
	return c, nil
}

// describe sets the handle and returns the driver's name, the name of the volume's directory, and whether the
// volume is persistent or lives as long as its pod.
func (c *call) describe() (driver, spec string, lifecycle storagev1.VolumeLifecycleMode) {
	if c.Inline != nil {
		c.handle = inlineHandle(c.Pod.UID, c.Name)
		return c.Inline.Driver, c.Name, ephemeral
	}

	source := c.PV.Spec.CSI
	c.handle = source.VolumeHandle
	return source.Driver, c.PV.Name, storagev1.VolumeLifecyclePersistent
}

// policy is the spec of the CSIDriver object, or the defaults for a driver that has none.
func (m *Mounter) policy(ctx context.Context, driver string) (storagev1.CSIDriverSpec, error) {
	spec := storagev1.CSIDriverSpec{}
	obj, err := m.cfg.Objects.CSIDriver(ctx, driver)
	switch {
	case err == nil:
		spec = obj.Spec
	case !apierrors.IsNotFound(err):
		return spec, fmt.Errorf("CSIDriver %s: %w", driver, err)
	}

	if spec.AttachRequired == nil {
		spec.AttachRequired = new(true)
	}
	if spec.FSGroupPolicy == nil {
		spec.FSGroupPolicy = new(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(spec.VolumeLifecycleModes) == 0 {
		spec.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}

	return spec, nil
}

// checkLifecycle refuses a volume whose lifecycle is none of those that the driver supports.
func checkLifecycle(p storagev1.CSIDriverSpec, driver string, want storagev1.VolumeLifecycleMode) error {
	if slices.Contains(p.VolumeLifecycleModes, want) {
		return nil
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)",
		want, driver, p.VolumeLifecycleModes)
}

// publish makes the volume available at the pod's target.
func (m *Mounter) publish(ctx context.Context, c *call) error {
	secrets, err := m.secrets(ctx, c.publishSecret())
	if err != nil {
		return err
	}

	attributes, secrets, err := m.attributes(ctx, c, secrets)
	if err != nil {
		return err
	}

	request := &csi.NodePublishVolumeRequest{
		VolumeId:         c.handle,
		PublishContext:   c.context,
		TargetPath:       c.place.target,
		VolumeCapability: c.capability(),
		Readonly:         c.ReadOnly,
		Secrets:          secrets,
		VolumeContext:    attributes,
	}
	if c.Inline == nil && c.driver.Can(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		request.StagingTargetPath = c.place.staging.Path
	}

	// CSI: the driver makes the target, the caller the directory that holds it.
	if err := os.MkdirAll(filepath.Dir(c.place.target), 0o750); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(c.place.target), err)
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	if _, err := c.driver.Node.NodePublishVolume(ctx, request); err != nil {
		return fmt.Errorf("NodePublishVolume of %s: %w", c.handle, err)
	}

	return nil
}

// secrets returns the data of a secret that is meant for the driver, nil for no reference.
func (m *Mounter) secrets(ctx context.Context, ref *v1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}

	s, err := m.cfg.Objects.Secret(ctx, ref.Namespace, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s for the CSI driver: %w", ref.Namespace, ref.Name, err)
	}

	out := make(map[string]string, len(s.Data))
	for k, v := range s.Data {
		out[k] = string(v)
	}

	return out, nil
}
