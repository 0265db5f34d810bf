package csivolume_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/csivolume/staging"
	"github.com/trivet-node/trivet/node/volume"
)

// unattached are the nodes of a driver whose volumes are not attached.
func unattached(t *testing.T) *node {
	t.Helper()
	return start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
}

func (n *node) setUp(t *testing.T, r volume.Request) {
	t.Helper()
	_, err := n.mounter.Setup(t.Context(), r)
	must(t, err)
}

func (n *node) tearDown(t *testing.T, pod string) {
	t.Helper()
	must(t, n.mounter.Teardown(t.Context(), request(pod).Pod.UID))
}

// blockRequest asks for the device of pv1.
func blockRequest(uid string) volume.Request {
	r := request(uid)
	r.Block = true
	return r
}

func TestAPodDoesNotWaitForADriverThatHangs(t *testing.T) {
	n := unattached(t)
	n.driver.stuck = make(chan struct{})
	n.setUp(t, request("u1"))
	n.tearDown(t, "u1")
	if _, err := os.Lstat(filepath.Join(n.root, "pods/u1/volumes/kubernetes.io~csi/pv1")); err == nil {
		t.Error("the pod still has the volume")
	}

	awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
	close(n.driver.stuck)
	n.awaitUnstaged(t)
	wantCalls(t, n.driver)
}

// What a driver has done when it fails nobody knows: the next pod has the volume staged again.
func TestAVolumeIsStagedAgainAfterAnUnstagingThatFailed(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.DeadlineExceeded} {
		for _, ask := range []func(string) volume.Request{request, blockRequest} {
			n := unattached(t)
			n.driver.failOn("unstage", status.Error(code, "no"))
			n.setUp(t, ask("u1"))
			n.tearDown(t, "u1")
			awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")

			n.setUp(t, ask("u2"))
			n.driver.failOn("unstage", nil)
			n.tearDown(t, "u2")
			n.awaitUnstaged(t)

			// There may have been another attempt before the second pod.
			said := n.driver.said()
			for len(said) > 0 && said[0] == "unstage" {
				said = said[1:]
			}
			n.driver.calls = said
			wantCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
		}
	}
}

func TestAVolumeThatAnotherPodWantsIsNotUnstaged(t *testing.T) {
	n := unattached(t)
	for _, ask := range []func(string) volume.Request{request, blockRequest} {
		n.driver.failOn("unstage", errors.New("busy"))
		n.setUp(t, ask("u1"))
		n.tearDown(t, "u1")
		awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")

		// The attempt that is due finds a pod that has the volume.
		n.setUp(t, ask("u2"))
		n.driver.failOn("unstage", nil)
		n.driver.said()
		n.mounter.DriversChanged()
		n.restart(t)
		n.setUp(t, ask("u2"))
		wantCalls(t, n.driver)
		n.tearDown(t, "u2")
		n.awaitUnstaged(t)
		wantCalls(t, n.driver, "unpublish", "unstage")
	}
}

func TestAnAgentUnstagesWhatAnEarlierOneHasLeft(t *testing.T) {
	n := unattached(t)
	for _, ask := range []func(string) volume.Request{request, blockRequest} {
		n.driver.failOn("unstage", errors.New("busy"))
		n.setUp(t, ask("u1"))
		n.tearDown(t, "u1")
		awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
		n.end()

		// The node may have been booted since.
		must(t, mount.UnmountBelow(n.root))
		n.driver.said()
		n.driver.failOn("unstage", nil)
		n.restart(t)
		n.awaitUnstaged(t)
		wantCalls(t, n.driver, "unstage")
	}
}

func TestWhatKubeletHasStagedIsUnstaged(t *testing.T) {
	n := unattached(t)
	csi := filepath.Join(n.root, "plugins/kubernetes.io/csi")
	place := func(dir, staging string) {
		t.Helper()
		text, err := json.Marshal(map[string]string{"volumeHandle": "handle", "driverName": "fake.csi"})
		must(t, err)
		must(t, os.MkdirAll(filepath.Join(csi, dir), 0o750))
		must(t, os.WriteFile(filepath.Join(csi, dir, "vol_data.json"), text, 0o600))
		must(t, os.MkdirAll(filepath.Join(csi, staging), 0o750))
		must(t, mount.Tmpfs(filepath.Join(csi, staging), "mode=0755"))
	}

	place("fake.csi/0123", "fake.csi/0123/globalmount")
	place("volumeDevices/pv1/data", "volumeDevices/staging/pv1")
	must(t, os.MkdirAll(filepath.Join(csi, "volumeDevices/pv1/dev"), 0o750))
	must(t, os.MkdirAll(filepath.Join(csi, "volumeDevices/publish/pv1"), 0o750))

	n.restart(t)
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "unstage", "unstage")
}

func TestAVolumeOfADriverThatIsGoneIsUnstagedWhenItIsBack(t *testing.T) {
	n := unattached(t)
	n.driver.failOn("unstage", errors.New("busy"))
	n.setUp(t, request("u1"))
	n.tearDown(t, "u1")
	awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")

	must(t, os.Rename(n.socket, n.socket+".away"))
	<-n.cluster.removed
	n.restart(t)
	n.driver.said()
	n.driver.failOn("unstage", nil)

	must(t, os.Rename(n.socket+".away", n.socket))
	n.awaitUnstaged(t)

	// The driver may hear late of a call that was cut off when it went.
	said := slices.Compact(n.driver.said())
	if !slices.Equal(said, []string{"unstage"}) {
		t.Errorf("calls %v, want the volume unstaged", said)
	}
}

// A block volume has its place by the name of the persistent volume, which may be made again.
func TestABlockVolumeWaitsForTheUnstagingOfAnotherOfItsName(t *testing.T) {
	n := unattached(t)
	n.driver.failOn("unstage", errors.New("busy"))
	n.setUp(t, blockRequest("u1"))
	n.tearDown(t, "u1")
	awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")

	again := blockRequest("u2")
	again.PV.Spec.CSI.VolumeHandle = "another"
	for range 2 {
		_, err := n.mounter.Setup(t.Context(), again)
		if !errors.Is(err, staging.ErrTaken) {
			t.Fatalf("error %v, want that the place is taken", err)
		}
		n.restart(t)
	}
	n.tearDown(t, "u2")

	n.driver.failOn("unstage", nil)
	n.mounter.DriversChanged()
	n.awaitUnstaged(t)
	n.driver.said()
	n.setUp(t, again)
	n.tearDown(t, "u2")
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
}

// What cannot be removed is found by the record.
func TestAPodHasAVolumeAsLongAsAnythingOfItCannotBeRemoved(t *testing.T) {
	n := unattached(t)
	n.setUp(t, request("u1"))
	dir := filepath.Join(n.root, "pods/u1/volumes/kubernetes.io~csi/pv1")
	left := filepath.Join(dir, "left")
	must(t, os.Mkdir(left, 0o700))
	must(t, mount.Tmpfs(left, "mode=0755"))

	err := n.mounter.Teardown(t.Context(), "u1")
	if !errors.Is(err, removal.ErrMounted) {
		t.Errorf("error %v", err)
	}
	_, err = os.Lstat(filepath.Join(dir, "vol_data.json"))
	must(t, err)
	wantCalls(t, n.driver, "stage", "publish", "unpublish")

	must(t, mount.Unmount(left))
	n.tearDown(t, "u1")
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "unpublish", "unstage")
}
