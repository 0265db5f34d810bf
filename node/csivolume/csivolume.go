// Package csivolume makes the volumes of CSI drivers available to pods: wait for the attachment where a
// driver needs one, stage, publish, hand over to the fsGroup, and all of it backwards. What is done is
// written down in kubelet's vol_data.json beside each mount before the driver is called, so that Teardown
// works from the disk alone, after a crash, a reboot, or a change from kubelet.
package csivolume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/fsgroup"
	"github.com/trivet-node/trivet/node/volume"
)

// rpcTimeout bounds one call of a driver, as kubelet does.
const rpcTimeout = 2 * time.Minute

// attachWait is how long one Setup waits for an attachment: it holds the pod's volumes, and the pod may be
// deleted meanwhile. The caller tries again.
const attachWait = 10 * time.Second

// Objects is what is read from the API server (objects.Cache).
type Objects interface {
	CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	VolumeAttachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error)
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Drivers finds registered drivers (csiplugin.Registry).
type Drivers interface {
	Driver(name string) (*csiplugin.Driver, error)
}

// Config is what a Mounter needs.
type Config struct {
	Root    string // kubelet's root directory
	Node    string // the node's name
	Objects Objects
	Drivers Drivers
	Tokens  volume.Tokens
	Claims  Claims // notes grown claims; nil: growth on the node is not noted
}

// Mounter is the volume.CSI of a real node.
type Mounter struct {
	cfg    Config
	boot   string
	staged keylock.Locks[string] // driver + volume handle
}

// New returns a mounter.
func New(cfg Config) (*Mounter, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	return &Mounter{cfg: cfg, boot: strings.TrimSpace(string(id))}, nil
}

// Revisits reports whether the driver's volumes are to be set up again and again. A driver that cannot be
// looked up is not called.
func (m *Mounter) Revisits(ctx context.Context, name string, persistent bool) bool {
	if policy, err := m.policy(ctx, name); err == nil && isTrue(policy.RequiresRepublish) {
		return true
	}
	driver, err := m.cfg.Drivers.Driver(name)
	return err == nil && persistent && driver.Can(csi.NodeServiceCapability_RPC_EXPAND_VOLUME)
}

// call is one volume on its way to a pod.
type call struct {
	volume.CSIRequest
	driver  *csiplugin.Driver
	policy  storagev1.CSIDriverSpec // of the CSIDriver object, defaults filled in
	handle  string
	place   place
	context map[string]string // from the attachment
}

// Setup makes the volume available; repeating it is cheap, and repairs.
func (m *Mounter) Setup(ctx context.Context, r volume.CSIRequest) (string, error) {
	c, err := m.prepare(ctx, r)
	if err != nil {
		return "", err
	}

	done, err := c.place.done(m.boot)
	if err != nil {
		return "", err
	}
	if done && !isTrue(c.policy.RequiresRepublish) {
		return m.grown(ctx, c)
	}
	if err := m.attached(ctx, c); err != nil {
		return "", &volume.Error{Volume: r.Name, Reason: "FailedAttachVolume", Err: err}
	}
	if err := m.stage(ctx, c); err != nil {
		return "", err
	}
	if err := m.publish(ctx, c); err != nil {
		return "", err
	}
	if err := m.giveToGroup(ctx, c); err != nil {
		return "", err
	}
	if err := c.place.finish(m.boot); err != nil {
		return "", err
	}

	return m.grown(ctx, c)
}

// prepare finds the driver and what the cluster says about it.
func (m *Mounter) prepare(ctx context.Context, r volume.CSIRequest) (*call, error) {
	c := &call{CSIRequest: r}
	name, spec := "", r.Name
	if r.Inline != nil {
		name, c.handle = r.Inline.Driver, inlineHandle(r.Pod.UID, r.Name)
	} else {
		name, c.handle, spec = r.PV.Spec.CSI.Driver, r.PV.Spec.CSI.VolumeHandle, r.PV.Name
	}

	var err error
	if c.policy, err = m.policy(ctx, name); err != nil {
		return nil, err
	}
	if err := checkLifecycle(c.policy, name, r.Inline != nil); err != nil {
		return nil, err
	}
	if c.driver, err = m.cfg.Drivers.Driver(name); err != nil {
		return nil, err
	}

	c.place = m.place(r.Pod.UID, spec, name, c.handle, r.Block)
	c.place.record.Lifecycle = "Persistent"
	if r.Inline != nil {
		c.place.record.Lifecycle = "Ephemeral"
	}

	return c, nil
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

func checkLifecycle(p storagev1.CSIDriverSpec, driver string, inline bool) error {
	want := storagev1.VolumeLifecyclePersistent
	if inline {
		want = storagev1.VolumeLifecycleEphemeral
	}
	for _, mode := range p.VolumeLifecycleModes {
		if mode == want {
			return nil
		}
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)",
		want, driver, p.VolumeLifecycleModes)
}

// stage makes the volume available on the node, once for all pods. The pod's own record is written first: it
// is what holds the stage.
func (m *Mounter) stage(ctx context.Context, c *call) error {
	unlock, err := m.staged.Lock(ctx, c.driver.Name+"^"+c.handle)
	if err != nil {
		return fmt.Errorf("stage volume %s: %w", c.handle, err)
	}
	defer unlock()

	if err := m.alone(c); err != nil {
		return err
	}
	if err := c.place.begin(m.cfg.Node); err != nil {
		return err
	}
	if c.Inline != nil || !c.driver.Can(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		return nil
	}
	if done, err := c.place.staged(m.boot); done || err != nil {
		return err
	}

	secrets, err := m.secrets(ctx, c.PV.Spec.CSI.NodeStageSecretRef)
	if err != nil {
		return err
	}
	if err := c.place.beginStage(); err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	_, err = c.driver.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          c.handle,
		PublishContext:    c.context,
		StagingTargetPath: c.place.staging,
		VolumeCapability:  c.capability(),
		Secrets:           secrets,
		VolumeContext:     c.PV.Spec.CSI.VolumeAttributes,
	})
	if err != nil {
		return fmt.Errorf("MountDevice: NodeStageVolume of %s: %w", c.handle, err)
	}

	return c.place.finishStage(m.boot)
}

// alone refuses a second pod of this node a volume that only one may have (ReadWriteOncePod), whether its
// driver cares or not. The scheduler does so, too, but not everything is scheduled. The stage is locked.
func (m *Mounter) alone(c *call) error {
	if c.PV == nil || len(c.PV.Spec.AccessModes) != 1 || c.PV.Spec.AccessModes[0] != v1.ReadWriteOncePod {
		return nil
	}

	others, err := m.usedByOthers(c.Pod.UID, &c.place)
	if err != nil || !others {
		return err
	}

	reason := "FailedMount"
	if c.Block {
		reason = "FailedMapVolume"
	}

	inUse := errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
	return &volume.Error{Volume: c.PV.Name, Reason: reason, Err: inUse}
}

// publish shows the volume to the pod.
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
		request.StagingTargetPath = c.place.staging
	}
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

// giveToGroup changes the owner as fsGroupPolicy says, unless the driver has done so (VOLUME_MOUNT_GROUP).
// What the pod can only read is left as it is: it cannot be changed, and where it could, other pods would see
// it change.
func (m *Mounter) giveToGroup(ctx context.Context, c *call) error {
	if c.FSGroup == nil || c.Block || c.ReadOnly ||
		c.driver.Can(csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP) ||
		!c.wantsGroup() {
		return nil
	}

	var fs unix.Statfs_t
	if err := unix.Statfs(c.place.target, &fs); err != nil {
		return fmt.Errorf("stat volume %s: %w", c.place.target, err)
	}

	// by its mount options, or by its driver
	if fs.Flags&unix.ST_RDONLY != 0 {
		return nil
	}

	sc := c.Pod.Spec.SecurityContext
	onMismatch := sc.FSGroupChangePolicy != nil && *sc.FSGroupChangePolicy == v1.FSGroupChangeOnRootMismatch
	return fsgroup.Apply(ctx, c.place.target, *c.FSGroup, false, onMismatch)
}

func (c *call) wantsGroup() bool {
	switch *c.policy.FSGroupPolicy {
	case storagev1.NoneFSGroupPolicy:
		return false
	case storagev1.FileFSGroupPolicy:
		return true
	}

	if c.PV == nil || c.PV.Spec.CSI.FSType == "" {
		return false
	}

	for _, mode := range c.PV.Spec.AccessModes {
		if mode == v1.ReadWriteOnce || mode == v1.ReadWriteOncePod {
			return true
		}
	}

	return false
}

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

// attached waits until the controller has attached the volume to this node, for drivers that need that. The
// Node authorizer allows to read an attachment by name but not to watch it, so this looks again and again,
// less and less often.
func (m *Mounter) attached(ctx context.Context, c *call) error {
	if c.Inline != nil || !isTrue(c.policy.AttachRequired) {
		return nil
	}

	name := attachmentName(c.handle, c.driver.Name, m.cfg.Node)
	ctx, cancel := context.WithTimeout(ctx, attachWait)
	defer cancel()

	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		va, err := m.cfg.Objects.VolumeAttachment(ctx, name)
		switch {
		case err == nil && va.DeletionTimestamp != nil:
			err = fmt.Errorf("volume attachment %s is being deleted", name)
		case err == nil && va.Status.Attached:
			c.context = va.Status.AttachmentMetadata
			return nil
		case err == nil && va.Status.AttachError != nil:
			err = errors.New(va.Status.AttachError.Message)
		case err == nil:
			err = fmt.Errorf("volume attachment %s is not attached yet", name)
		}

		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the volume to be attached: %w", err)
		case <-time.After(wait):
		}
	}
}

func isTrue(b *bool) bool { return b != nil && *b }
