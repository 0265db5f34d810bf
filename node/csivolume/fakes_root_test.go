package csivolume_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
)

// driver is a CSI driver on a real socket: it stages by a tmpfs and publishes by a bind mount, and notes its
// calls.
type driver struct {
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	endpoint string

	mu    sync.Mutex
	calls []string
	fail  map[string]error

	// called is filled when there are calls that nobody has asked for.
	called chan struct{}
	status chan *registration.RegistrationStatus
	last   *csi.NodePublishVolumeRequest
	staged *csi.NodeStageVolumeRequest // the last one

	// hang is what NodeGetVolumeStats waits for, and stuck what NodeUnstageVolume does, nil for nothing.
	hang  chan struct{}
	stuck chan struct{}
}

// note records a call, and returns the error that the test wants for it.
func (d *driver) note(call string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
	select {
	case d.called <- struct{}{}:
	default:
	}
	return d.fail[call]
}

// failOn has a call fail, or succeed with nil.
func (d *driver) failOn(call string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[call] = err
}

// said returns the calls since it was last called.
func (d *driver) said() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	calls := d.calls
	d.calls = nil
	return calls
}

func (d *driver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              "fake.csi",
		Endpoint:          d.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (d *driver) NotifyRegistrationStatus(
	_ context.Context,
	s *registration.RegistrationStatus,
) (*registration.RegistrationStatusResponse, error) {
	d.status <- s
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *driver) NodeGetCapabilities(
	context.Context,
	*csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	var can []*csi.NodeServiceCapability
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	} {
		rpc := &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}
		can = append(can, &csi.NodeServiceCapability{Type: rpc})
	}

	return &csi.NodeGetCapabilitiesResponse{Capabilities: can}, nil
}

func (d *driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             "node-id",
		AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "a"}},
	}, nil
}

func (d *driver) NodeStageVolume(
	_ context.Context,
	r *csi.NodeStageVolumeRequest,
) (*csi.NodeStageVolumeResponse, error) {
	d.mu.Lock()
	d.staged = r
	d.mu.Unlock()
	if err := d.note("stage"); err != nil {
		return nil, err
	}
	return &csi.NodeStageVolumeResponse{}, mount.Tmpfs(r.StagingTargetPath, "mode=0755")
}

func (d *driver) NodePublishVolume(
	_ context.Context,
	r *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	d.mu.Lock()
	d.last = r
	d.mu.Unlock()
	if err := d.note("publish"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.TargetPath, 0o755); err != nil {
		return nil, err
	}
	if r.StagingTargetPath == "" {
		return &csi.NodePublishVolumeResponse{}, mount.Tmpfs(r.TargetPath, "mode=0755")
	}

	o := mount.BindOptions{ReadOnly: r.Readonly}
	return &csi.NodePublishVolumeResponse{}, mount.Bind(r.StagingTargetPath, r.TargetPath, o)
}

func (d *driver) NodeUnpublishVolume(
	_ context.Context,
	r *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := d.note("unpublish"); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, errors.Join(
		mount.Unmount(r.TargetPath),
		os.RemoveAll(r.TargetPath),
	)
}

func (d *driver) NodeUnstageVolume(
	ctx context.Context,
	r *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	d.mu.Lock()
	stuck := d.stuck
	d.mu.Unlock()
	if err := d.note("unstage"); err != nil {
		return nil, err
	}
	if stuck != nil {
		select {
		case <-stuck:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &csi.NodeUnstageVolumeResponse{}, mount.Unmount(r.StagingTargetPath)
}

func (d *driver) NodeGetVolumeStats(
	ctx context.Context,
	r *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	if err := d.note("stats " + r.VolumeId); err != nil {
		return nil, err
	}

	if d.hang != nil {
		select {
		case <-d.hang:
		case <-ctx.Done():
		}
	}

	if _, err := os.Stat(r.VolumePath); err != nil {
		return nil, err
	}

	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{Unit: csi.VolumeUsage_BYTES, Total: 100, Used: 40, Available: 60},
		{Unit: csi.VolumeUsage_INODES, Total: 10, Used: 4, Available: -6},
	}}, nil
}

// NodeExpandVolume grows the tmpfs.
func (d *driver) NodeExpandVolume(
	_ context.Context,
	r *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	if err := d.note("expand"); err != nil {
		return nil, err
	}
	size := fmt.Sprintf("size=%d", r.CapacityRange.RequiredBytes)
	err := unix.Mount("", r.StagingTargetPath, "", unix.MS_REMOUNT, size)
	return &csi.NodeExpandVolumeResponse{}, err
}

// cluster is what the API server would say.
type cluster struct {
	spec       storagev1.CSIDriverSpec
	attachment *storagev1.VolumeAttachment

	// detaching: the Node does not show the volume any more. It is called when the Node is read.
	detaching func()

	mu      sync.Mutex
	added   []csiplugin.Info
	removed chan string
}

func (c *cluster) CSIDriver(_ context.Context, name string) (*storagev1.CSIDriver, error) {
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: c.spec}, nil
}

func (c *cluster) NeedsAttach(string) (needs, known bool) {
	return c.spec.AttachRequired == nil || *c.spec.AttachRequired, true
}

// Get returns the Node, which shows the attached volume.
func (c *cluster) Get(context.Context, string, string) (*v1.Node, error) {
	node := &v1.Node{}
	if c.detaching != nil {
		c.detaching()
	} else if c.attachment != nil && c.attachment.Status.Attached {
		shown := v1.AttachedVolume{Name: inuse.Name("fake.csi", "handle")}
		node.Status.VolumesAttached = []v1.AttachedVolume{shown}
	}
	return node, nil
}

func (c *cluster) VolumeAttachment(_ context.Context, name string) (*storagev1.VolumeAttachment, error) {
	if c.attachment == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "volumeattachments"}, name)
	}
	return c.attachment, nil
}

func (c *cluster) Secret(context.Context, string, string) (*v1.Secret, error) {
	return &v1.Secret{Data: map[string][]byte{"key": []byte("hidden")}}, nil
}

func (c *cluster) Add(_ context.Context, d csiplugin.Info) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.added = append(c.added, d)
	return nil
}

func (c *cluster) Remove(_ context.Context, name string) error {
	c.removed <- name
	return nil
}
