package csivolume_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/volume"
)

func TestAVolumeIsStagedOnceAndUnstagedByItsLastPod(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{
		AttachRequired: new(false),
		PodInfoOnMount: new(true),
	}})

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
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "unpublish", "unstage")
	if points, _ := mount.Below(n.root); len(points) != 0 {
		t.Errorf("still mounted: %v", points)
	}
}

func TestAMountedVolumeGrowsWithItsClaim(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	capacity := func(mib int64) v1.ResourceList {
		return v1.ResourceList{v1.ResourceStorage: *resource.NewQuantity(mib<<20, resource.BinarySI)}
	}

	r := request("u1")
	r.PV.Spec.Capacity = capacity(16)
	r.Claim = &v1.PersistentVolumeClaim{
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
	n.awaitUnstaged(t)
}

func TestAVolumeIsStagedWithTheSecretOfItsPersistentVolume(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	r := request("u1")
	r.PV.Spec.CSI.NodeStageSecretRef = &v1.SecretReference{Namespace: "keys", Name: "s"}
	_, err := n.mounter.Setup(t.Context(), r)
	must(t, err)
	if got := n.driver.staged.Secrets["key"]; got != "hidden" {
		t.Errorf("it was staged with %q", got)
	}

	// What nobody asked for no driver gets.
	if len(n.driver.last.Secrets) > 0 {
		t.Errorf("it was published with %v", n.driver.last.Secrets)
	}
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
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

	n.driver.fail["unpublish"] = errors.New("busy")
	if err := n.mounter.Teardown(t.Context(), "u1"); err == nil {
		t.Fatal("a failing unpublish is no error")
	}

	delete(n.driver.fail, "unpublish")
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "unpublish", "unpublish", "unstage")
}

func TestAStagingThatWasRefusedIsNotUndone(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	setUp := func(code codes.Code) {
		t.Helper()
		n.driver.fail["stage"] = status.Error(code, "no")
		if _, err := n.mounter.Setup(t.Context(), request("u1")); status.Code(err) != code {
			t.Fatalf("error %v, want code %v", err, code)
		}
	}

	setUp(codes.InvalidArgument)
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver, "stage", "unpublish")

	// The driver may still be at it.
	setUp(codes.DeadlineExceeded)
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "stage", "unpublish", "unstage")

	// What it refuses after that may have been staged before.
	setUp(codes.Unavailable)
	setUp(codes.Internal)
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "stage", "stage", "unpublish", "unstage")
}

func TestVolumesOfOneHandleAreUnstagedWithTheLast(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	for _, at := range []struct{ pod, volume string }{{"u1", "pv1"}, {"u2", "pv2"}, {"u2", "pv3"}} {
		r := request(at.pod)
		r.PV.Name = at.volume
		_, err := n.mounter.Setup(t.Context(), r)
		must(t, err)
	}
	wantCalls(t, n.driver, "stage", "publish", "publish", "publish")

	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver, "unpublish")
	must(t, n.mounter.Teardown(t.Context(), "u2"))
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "unpublish", "unpublish", "unstage")
}

func TestInlineVolumes(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{
		VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral},
	}})

	r := request("u1")
	r.PV = nil
	r.Inline = &v1.CSIVolumeSource{
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

	_, err = n.mounter.Setup(t.Context(), request("u2"))
	if err == nil || !strings.Contains(err.Error(), "not supported by driver") {
		t.Errorf("a persistent volume of an ephemeral driver: %v", err)
	}

	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver, "publish", "unpublish")
}

func TestADriverThatGoesIsTakenOut(t *testing.T) {
	c := &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}}
	n := start(t, c)
	c.mu.Lock()
	added := c.added
	c.mu.Unlock()
	if len(added) != 1 || added[0].NodeID != "node-id" || added[0].Topology["zone"] != "a" {
		t.Errorf("added %+v", added)
	}

	must(t, os.Remove(n.socket))
	if name := <-c.removed; name != "fake.csi" {
		t.Errorf("removed %s", name)
	}

	_, err := n.mounter.Setup(t.Context(), request("u1"))
	if err == nil || !strings.Contains(err.Error(), "not found in the list of registered CSI drivers") {
		t.Errorf("error %v", err)
	}
}
