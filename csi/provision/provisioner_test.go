package provision

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/provision/kubeapi"
)

// disk is a CSI controller that remembers its volumes.
type disk struct {
	csi.ControllerClient // the methods that no test calls
	mu                   sync.Mutex
	volumes              map[string]int64
	fail                 map[string]error // by method, until it is mended
	calls                map[string]int   // of CreateVolume, by name
	onNode               bool             // growth has to be finished on the node
	busy                 bool             // somebody writes to the disk all the time
	looks                int64            // calls of GetCapacity
}

func (d *disk) mend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.fail)
}

func (d *disk) CreateVolume(
	_ context.Context,
	r *csi.CreateVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.CreateVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.calls[r.GetName()]++
	if err := d.fail["CreateVolume"]; err != nil {
		return nil, err
	}

	d.volumes[r.GetName()] = r.GetCapacityRange().GetRequiredBytes()
	if err := d.fail["CreateVolume after it was made"]; err != nil {
		return nil, err
	}

	return &csi.CreateVolumeResponse{Volume: &csi.Volume{VolumeId: r.GetName(), CapacityBytes: d.volumes[r.GetName()],
		AccessibleTopology: r.GetAccessibilityRequirements().GetRequisite()}}, nil
}

func (d *disk) DeleteVolume(
	_ context.Context,
	r *csi.DeleteVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.DeleteVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.volumes, r.GetVolumeId())
	return &csi.DeleteVolumeResponse{}, nil
}

func (d *disk) ControllerExpandVolume(
	_ context.Context,
	r *csi.ControllerExpandVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.ControllerExpandVolumeResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	if err := d.fail["ControllerExpandVolume"]; err != nil {
		return nil, err
	}
	if r.GetCapacityRange().GetRequiredBytes() > 10<<30 {
		return nil, status.Error(codes.OutOfRange, "too large")
	}

	d.volumes[r.GetVolumeId()] = r.GetCapacityRange().GetRequiredBytes()
	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes:         d.volumes[r.GetVolumeId()],
		NodeExpansionRequired: d.onNode,
	}, nil
}

func (d *disk) GetCapacity(
	_ context.Context,
	r *csi.GetCapacityRequest,
	_ ...grpc.CallOption,
) (*csi.GetCapacityResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.looks++

	// each look finds less
	if d.busy {
		return &csi.GetCapacityResponse{AvailableCapacity: 10<<30 - d.looks<<20}, nil
	}
	if r.GetVolumeCapabilities()[0].GetMount().GetFsType() == "xfs" {
		return &csi.GetCapacityResponse{AvailableCapacity: 5 << 30}, nil
	}

	return &csi.GetCapacityResponse{AvailableCapacity: 10 << 30}, nil
}

func (d *disk) asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[name]
}

func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.volumes)
}

type fixture struct {
	t      *testing.T
	server *server
	client *kubeapi.Client
	disk   *disk
	dir    string
}

const claimPath = "namespaces/ns/persistentvolumeclaims/data"

func newFixture(t *testing.T, claims ...*corev1.PersistentVolumeClaim) *fixture {
	s, client := newServer(t)
	delayedClass, immediate := newClass(storagev1.VolumeBindingWaitForFirstConsumer), newClass(storagev1.VolumeBindingImmediate)
	immediate.Name = "now"
	for _, class := range []*storagev1.StorageClass{delayedClass, immediate} {
		class.TypeMeta = metav1.TypeMeta{Kind: "StorageClass", APIVersion: "storage.k8s.io/v1"}
		s.add("storageclasses/"+class.Name, class)
	}

	s.add(
		"csinodes/a",
		&storagev1.CSINode{
			TypeMeta:   metav1.TypeMeta{Kind: "CSINode", APIVersion: "storage.k8s.io/v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "a"},
			Spec: storagev1.CSINodeSpec{
				Drivers: []storagev1.CSINodeDriver{{Name: testDriver, NodeID: "a"}},
			},
		},
	)

	driver := &storagev1.CSIDriver{
		ObjectMeta: metav1.ObjectMeta{Name: testDriver},
		Spec:       storagev1.CSIDriverSpec{StorageCapacity: new(true)},
	}

	driver.TypeMeta = metav1.TypeMeta{Kind: "CSIDriver", APIVersion: "storage.k8s.io/v1"}
	s.add("csidrivers/"+testDriver, driver)
	for _, c := range claims {
		c.TypeMeta = metav1.TypeMeta{Kind: "PersistentVolumeClaim", APIVersion: "v1"}
		s.add("namespaces/ns/persistentvolumeclaims/"+c.Name, c)
	}

	return &fixture{
		t:      t,
		server: s,
		client: client,
		dir:    t.TempDir(),
		disk:   &disk{volumes: map[string]int64{}, fail: map[string]error{}, calls: map[string]int{}},
	}
}

// run runs a provisioner; the returned function ends it.
func (f *fixture) run() (stop func()) {
	f.t.Helper()
	p, err := New(Config{
		Driver:      testDriver,
		TopologyKey: testKey,
		Node:        "a",
		Dir:         f.dir,
		Client:      f.client,
		CSI:         f.disk,
		Log:         slog.New(slog.NewTextHandler(f.t.Output(), nil)),
	})
	if err != nil {
		f.t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(f.t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	}
}

// eventually waits for a condition of the API's state.
func (f *fixture) eventually(what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			f.t.Fatalf("never happened: %s", what)
		}
	}
}

func (f *fixture) volume(name string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{}
	if !f.server.read("persistentvolumes/"+name, pv) {
		return nil
	}
	return pv
}

// selected is the node that a claim is for.
func (f *fixture) selected(claim string) string {
	c := &corev1.PersistentVolumeClaim{}
	f.server.read("namespaces/ns/persistentvolumeclaims/"+claim, c)
	return c.Annotations[annSelectedNode]
}

func (f *fixture) event(reason string) bool {
	return slices.ContainsFunc(f.server.events(), func(e corev1.Event) bool { return e.Reason == reason })
}

func wanting(size, class, node string) *corev1.PersistentVolumeClaim {
	return newClaim(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
		c.Spec.StorageClassName = new(class)
		if node != "" {
			c.Annotations[annSelectedNode] = node
		}
	})
}

func TestClaimGetsItsVolumeAndGivesItBack(t *testing.T) {
	for _, claim := range []*corev1.PersistentVolumeClaim{
		wanting("1Gi", "fast", "a"),
		wanting("1Gi", "now", ""),
	} {
		t.Run(*claim.Spec.StorageClassName, func(t *testing.T) {
			f := newFixture(t, claim)
			defer f.run()()

			f.eventually("the volume object", func() bool { return f.volume("pvc-uid-1") != nil })
			pv := f.volume("pvc-uid-1")
			if pv.Spec.ClaimRef.UID != claim.UID || !onNode(pv, testKey, "a") || !hasFinalizer(pv) ||
				pv.Spec.Capacity.Storage().Value() != 1<<30 {
				t.Errorf("volume object %+v", pv)
			}

			f.eventually("the event", func() bool { return f.event("ProvisioningSucceeded") })
			f.server.change("persistentvolumes/pvc-uid-1", document{"status": document{"phase": "Released"}})
			f.eventually("content and object are gone",
				func() bool { return f.volume("pvc-uid-1") == nil && f.disk.count() == 0 })
		})
	}
}

func TestFullNodeGivesTheClaimBackToTheScheduler(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	f.disk.fail["CreateVolume"] = status.Error(codes.ResourceExhausted, "full")
	defer f.run()()
	f.eventually("selected-node is removed", func() bool { return f.selected("data") == "" })
	f.eventually("the event", func() bool { return f.event("ProvisioningFailed") })
	if f.disk.count() != 0 || f.volume("pvc-uid-1") != nil {
		t.Error("a volume was made")
	}
}

// The driver says that there is room, and then that there is none. Nobody else takes the claim, so it comes
// back at once, again and again.
func TestImmediateClaimWithoutRoomIsLeftAloneForAWhile(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "now", ""))
	f.disk.fail["CreateVolume"] = status.Error(codes.ResourceExhausted, "full")
	defer f.run()()

	f.eventually("it is tried",
		func() bool { return f.disk.asked("pvc-uid-1") > 0 && f.selected("data") == "" })
	f.disk.mend()
	other := wanting("1Gi", "now", "")
	other.Name, other.UID, other.TypeMeta = "other", "uid-2", metav1.TypeMeta{
		Kind:       "PersistentVolumeClaim",
		APIVersion: "v1",
	}

	f.server.change(claimPath, document{"metadata": document{"labels": document{"a": "hint"}}})
	f.server.add("namespaces/ns/persistentvolumeclaims/other", other)
	f.eventually("another claim comes and is served", func() bool { return f.volume("pvc-uid-2") != nil })
	if n := f.disk.asked("pvc-uid-1"); n != 1 {
		t.Errorf("asked for the volume %d times", n)
	}
}

func TestClaimOfAVanishedNodeGoesBackToTheScheduler(t *testing.T) {
	there := wanting("1Gi", "fast", "without-driver")
	there.Name, there.UID = "other", "uid-2"
	f := newFixture(t, wanting("1Gi", "fast", "gone"), there)
	f.server.add("nodes/without-driver", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "without-driver"}})
	defer f.run()()
	f.eventually("selected-node is removed", func() bool { return f.selected("data") == "" })
	if f.selected("other") == "" {
		t.Error("a claim was taken from a node that exists")
	}
}

// The driver made the volume, the answer got lost, and the claim went away meanwhile: nobody knows of the
// volume but the intent.
func TestVolumeOfAVanishedClaimIsDeleted(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	f.disk.fail["CreateVolume after it was made"] = status.Error(codes.DeadlineExceeded, "too late")
	stop := f.run()
	f.eventually("the volume is made", func() bool { return f.disk.count() == 1 })
	stop()
	f.disk.mend()
	f.server.remove(claimPath)
	defer f.run()()
	f.eventually("the volume is deleted", func() bool { return f.disk.count() == 0 })
}

// As above, but the claim's class retains volumes: for all we know somebody has put data into it meanwhile.
func TestVolumeOfAVanishedClaimIsRetained(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	f.server.change("storageclasses/fast", document{"reclaimPolicy": "Retain"})
	f.disk.fail["CreateVolume after it was made"] = status.Error(codes.DeadlineExceeded, "too late")
	stop := f.run()
	f.eventually("the volume is made", func() bool { return f.disk.count() == 1 })
	stop()
	f.disk.mend()
	f.server.remove(claimPath)
	defer f.run()()

	f.eventually("it is settled", func() bool {
		left, err := filepath.Glob(filepath.Join(f.dir, "*.json"))
		return err == nil && len(left) == 0
	})
	if f.disk.count() != 1 {
		t.Error("the volume was deleted")
	}
}

func TestLostAnswerIsAskedForAgain(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	f.disk.fail["CreateVolume after it was made"] = status.Error(codes.Unavailable, "gone")
	defer f.run()()
	f.eventually("the volume is made", func() bool { return f.disk.count() == 1 })
	f.disk.mend()
	f.eventually("the volume object", func() bool { return f.volume("pvc-uid-1") != nil })
	if f.disk.count() != 1 {
		t.Errorf("%d volumes", f.disk.count())
	}
}

func TestRequestOfAClaim(t *testing.T) {
	class := newClass(storagev1.VolumeBindingImmediate)
	class.Parameters = map[string]string{"backend": "image", paramFSType: "xfs"}
	claim := wanting("1500M", "fast", "a")
	claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	req, err := createRequest(facts{
		driver:      testDriver,
		topologyKey: testKey,
		node:        "a",
		claim:       claim,
		class:       class,
	})
	if err != nil {
		t.Fatal(err)
	}

	c := req.GetVolumeCapabilities()[0]
	if req.GetName() != "pvc-uid-1" || req.GetCapacityRange().GetRequiredBytes() != 1_500_000_000 ||
		c.GetMount().GetFsType() != "xfs" ||
		c.GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER ||
		req.GetParameters()["backend"] != "image" ||
		req.GetParameters()[paramFSType] != "" ||
		fmt.Sprint(req.GetAccessibilityRequirements().GetRequisite()[0].GetSegments()) != "map["+testKey+":a]" {
		t.Errorf("request %v", req)
	}
}

func volumeOn(node string) *csi.Volume {
	return &csi.Volume{
		VolumeId:           "pvc-uid-1",
		AccessibleTopology: []*csi.Topology{{Segments: map[string]string{testKey: node}}},
	}
}
