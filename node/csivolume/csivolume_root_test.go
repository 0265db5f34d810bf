package csivolume_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/volume"
)

// driver is a CSI driver on a real socket: it stages by a tmpfs and publishes by a bind mount, and notes its
// calls.
type driver struct {
	csi.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	endpoint string

	mu     sync.Mutex
	calls  []string
	fail   map[string]error
	status chan *registration.RegistrationStatus
	last   *csi.NodePublishVolumeRequest
}

func (d *driver) note(call string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
	return d.fail[call]
}

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
	} {
		can = append(
			can,
			&csi.NodeServiceCapability{
				Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}},
			},
		)
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

	return &csi.NodePublishVolumeResponse{}, mount.Bind(r.StagingTargetPath, r.TargetPath, false, r.Readonly)
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
	_ context.Context,
	r *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	if err := d.note("unstage"); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, mount.Unmount(r.StagingTargetPath)
}

// cluster is what the API server would say.
type cluster struct {
	spec       storagev1.CSIDriverSpec
	attachment *storagev1.VolumeAttachment
	mu         sync.Mutex
	added      []csiplugin.Info
	removed    chan string
}

func (c *cluster) CSIDriver(_ context.Context, name string) (*storagev1.CSIDriver, error) {
	return &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: c.spec}, nil
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

type node struct {
	root    string
	driver  *driver
	cluster *cluster
	mounter *csivolume.Mounter
	socket  string // registration
}

// start serves a driver, lets it be registered, and returns a mounter.
func start(t *testing.T, c *cluster) *node {
	t.Helper()
	testenv.Root(t)
	root := testenv.ShortDir(t)
	d := &driver{
		endpoint: filepath.Join(root, "csi.sock"),
		status:   make(chan *registration.RegistrationStatus, 9),
		fail:     map[string]error{},
	}

	server := grpc.NewServer()
	csi.RegisterNodeServer(server, d)
	registration.RegisterRegistrationServer(server, d)
	must(t, os.MkdirAll(filepath.Join(root, "plugins_registry"), 0o755))
	reg := filepath.Join(root, "plugins_registry", "fake-reg.sock")
	for _, path := range []string{d.endpoint, reg} {
		l, err := net.Listen("unix", path)
		must(t, err)
		go func() { _ = server.Serve(l) }()
	}

	c.removed = make(chan string, 9)
	registry := csiplugin.New(csiplugin.Config{
		Dir:       filepath.Dir(reg),
		Publisher: c,
		Changed:   func() {},
		Log:       slog.New(slog.DiscardHandler),
	})

	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- registry.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
		server.Stop()
	})
	if s := <-d.status; !s.PluginRegistered {
		t.Fatalf("not registered: %s", s.Error)
	}

	m, err := csivolume.New(csivolume.Config{
		Root:    root,
		Node:    "n",
		Objects: c,
		Drivers: registry,
	})

	must(t, err)
	return &node{
		root:    root,
		driver:  d,
		cluster: c,
		mounter: m,
		socket:  reg,
	}
}

func request(uid string) volume.Request {
	return volume.Request{Name: "data", Pod: &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p-" + uid, Namespace: "ns", UID: types.UID(uid)},
	},
		PV: &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv1"}, Spec: v1.PersistentVolumeSpec{
			AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			PersistentVolumeSource: v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "fake.csi", VolumeHandle: "handle",
				VolumeAttributes: map[string]string{"a": "1"}}}}}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCalls(t *testing.T, d *driver, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.said()); diff != "" {
		t.Errorf("calls: %s", diff)
	}
}

func TestAVolumeIsStagedOnceAndUnstagedByItsLastPod(t *testing.T) {
	n := start(
		t,
		&cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false), PodInfoOnMount: new(true)}},
	)

	provided, err := n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	path := provided.Path
	if want := filepath.Join(n.root, "pods/u1/volumes/kubernetes.io~csi/pv1/mount"); path != want {
		t.Errorf("path %s, want %s", path, want)
	}

	if a := n.driver.last.VolumeContext; a["a"] != "1" || a["csi.storage.k8s.io/pod.name"] != "p-u1" ||
		a["csi.storage.k8s.io/ephemeral"] != "false" {
		t.Errorf("volume context %v", a)
	}

	_, err = n.mounter.Setup(t.Context(), request("u2"))
	must(t, err)
	_, err = n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	wantCalls(t, n.driver, "stage", "publish", "publish")

	// A mounter without memory takes them down.
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver, "unpublish")
	must(t, n.mounter.Teardown(t.Context(), "u2"))
	must(t, n.mounter.Teardown(t.Context(), "u2"))
	wantCalls(t, n.driver, "unpublish", "unstage")
	if points, _ := mount.Below(n.root); len(points) != 0 {
		t.Errorf("still mounted: %v", points)
	}
	if left, _ := filepath.Glob(filepath.Join(n.root, "plugins/kubernetes.io/csi/fake.csi/*")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// NodeExpandVolume grows the tmpfs.
func (d *driver) NodeExpandVolume(
	_ context.Context,
	r *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	if err := d.note("expand"); err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{}, unix.Mount("",
		r.StagingTargetPath, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", r.CapacityRange.RequiredBytes))
}

func TestAMountedVolumeGrowsWithItsClaim(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	capacity := func(mib int64) v1.ResourceList {
		return v1.ResourceList{v1.ResourceStorage: *resource.NewQuantity(mib<<20, resource.BinarySI)}
	}
	r := request("u1")
	r.PV.Spec.Capacity, r.Claim = capacity(16), &v1.PersistentVolumeClaim{
		Status: v1.PersistentVolumeClaimStatus{Capacity: capacity(16)},
	}
	provided, err := n.mounter.Setup(t.Context(), r)
	must(t, err)
	wantCalls(t, n.driver, "stage", "publish")
	if !provided.Revisit {
		t.Error("nobody would look whether the claim has grown")
	}

	r.PV.Spec.Capacity = capacity(32)
	n.driver.fail["expand"] = errors.New("not now")
	still, err := n.mounter.Setup(t.Context(), r)
	if e, ok := errors.AsType[*reason.Error](err); !ok || e.Reason != volume.ResizeFailed ||
		still != provided {
		t.Errorf("%+v, error %v: a volume that does not grow stays available", still, err)
	}

	delete(n.driver.fail, "expand")
	_, err = n.mounter.Setup(t.Context(), r)
	must(t, err)
	wantCalls(t, n.driver, "expand", "expand")
	var st unix.Statfs_t
	must(t, unix.Statfs(provided.Path, &st))
	if size := int64(st.Blocks) * st.Bsize; size != 32<<20 {
		t.Errorf("the pod sees %d bytes, want 32 MiB", size)
	}

	r.Claim.Status.Capacity = capacity(32)
	_, err = n.mounter.Setup(t.Context(), r)
	must(t, err)
	wantCalls(t, n.driver)
	must(t, n.mounter.Teardown(t.Context(), "u1"))
}

func TestFailuresAreRepeatedFromWhereTheyHappened(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	n.driver.fail["publish"] = errors.New("not now")
	_, err := n.mounter.Setup(t.Context(), request("u1"))
	if err == nil || !strings.Contains(err.Error(), "not now") {
		t.Fatalf("error %v", err)
	}

	delete(n.driver.fail, "publish")
	_, err = n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	wantCalls(t, n.driver, "stage", "publish", "publish")
	// A reboot: the mounts are gone, the records are not.
	must(t, mount.UnmountBelow(n.root))
	_, err = n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	wantCalls(t, n.driver, "stage", "publish")
	n.driver.fail["unstage"] = errors.New("busy")
	if err := n.mounter.Teardown(t.Context(), "u1"); err == nil {
		t.Fatal("a failing unstage is no error")
	}

	delete(n.driver.fail, "unstage")
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver, "unpublish", "unstage", "unpublish", "unstage")
}

func TestInlineVolumes(t *testing.T) {
	n := start(
		t,
		&cluster{
			spec: storagev1.CSIDriverSpec{
				VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
			},
		},
	)

	r := request("u1")
	r.PV, r.Inline = nil, &v1.CSIVolumeSource{
		Driver:               "fake.csi",
		NodePublishSecretRef: &v1.LocalObjectReference{Name: "s"},
	}

	provided, err := n.mounter.Setup(t.Context(), r)
	must(t, err)
	if mounted, _ := mount.Mounted(provided.Path); !mounted || n.driver.last.Secrets["key"] != "hidden" {
		t.Errorf("mounted %v, secrets %v", mounted, n.driver.last.Secrets)
	}
	if provided.Revisit {
		t.Error("an inline volume does not grow, but is to be set up again")
	}

	if _, err := n.mounter.Setup(t.Context(), request("u2")); err == nil ||
		!strings.Contains(err.Error(), "not supported by driver") {
		t.Errorf("a persistent volume of an ephemeral driver: %v", err)
	}

	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver, "publish", "unpublish")
}

func TestAttachmentIsAwaited(t *testing.T) {
	c := &cluster{}
	n := start(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()

	_, err := n.mounter.Setup(ctx, request("u1"))
	if e, ok := errors.AsType[*reason.Error](err); !ok || e.Reason != "FailedAttachVolume" {
		t.Fatalf("error %v", err)
	}

	c.attachment = &storagev1.VolumeAttachment{
		Status: storagev1.VolumeAttachmentStatus{
			Attached:           true,
			AttachmentMetadata: map[string]string{"dev": "x"},
		},
	}

	_, err = n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	if n.driver.last.PublishContext["dev"] != "x" {
		t.Errorf("publish context %v", n.driver.last.PublishContext)
	}

	must(t, n.mounter.Teardown(t.Context(), "u1"))
}

func TestADriverThatGoesIsTakenOut(t *testing.T) {
	c := &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}}
	n := start(t, c)
	c.mu.Lock()
	if len(c.added) != 1 || c.added[0].NodeID != "node-id" ||
		!slices.Contains([]string{"a"}, c.added[0].Topology["zone"]) {
		t.Errorf("added %+v", c.added)
	}

	c.mu.Unlock()
	must(t, os.Remove(n.socket))
	if name := <-c.removed; name != "fake.csi" {
		t.Errorf("removed %s", name)
	}

	if _, err := n.mounter.Setup(t.Context(), request("u1")); err == nil ||
		!strings.Contains(err.Error(), "not found in the list of registered CSI drivers") {
		t.Errorf("error %v", err)
	}
}
