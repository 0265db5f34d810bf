package csivolume_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
	"github.com/trivet-node/trivet/node/reason"
)

// attachment is one of a volume that is attached.
func attachment() *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{
		Status: storagev1.VolumeAttachmentStatus{
			Attached:           true,
			AttachmentMetadata: map[string]string{"dev": "x"},
		},
	}
}

// show has the Node show the volumes that are in use, at once when one has come or gone.
func show(v *inuse.Volumes) {
	look := make(chan struct{}, 99)
	v.Follow(func() { look <- struct{}{} })
	go func() {
		for range look {
			if names, known := v.Names(nil); known {
				v.Reported(names)
			}
		}
	}()
	look <- struct{}{}
}

// wantInUse compares what the Node would show, when it has come to that.
func wantInUse(t *testing.T, n *node, want ...v1.UniqueVolumeName) {
	t.Helper()
	names, known := n.inUse.Names(nil)
	if diff := cmp.Diff(want, names); diff != "" || !known {
		t.Errorf("in use: known %v, %s", known, diff)
	}
}

// setUpBriefly returns what a Setup of the pod u1 says that has not much time.
func setUpBriefly(t *testing.T, n *node) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := n.mounter.Setup(ctx, request("u1"))
	return err
}

func TestAttachmentIsAwaited(t *testing.T) {
	c := &cluster{}
	n := start(t, c)
	show(n.inUse)
	err := setUpBriefly(t, n)
	if e, ok := errors.AsType[*reason.Error](err); !ok || e.Reason != "FailedAttachVolume" {
		t.Fatalf("error %v", err)
	}

	c.attachment = attachment()
	_, err = n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	if n.driver.last.PublishContext["dev"] != "x" {
		t.Errorf("publish context %v", n.driver.last.PublishContext)
	}

	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
}

const theVolume = "kubernetes.io/csi/fake.csi^handle"

func TestAVolumeIsInUseFromBeforeItIsStagedUntilItIsUnstaged(t *testing.T) {
	c := &cluster{attachment: attachment()}
	n := start(t, c)
	err := setUpBriefly(t, n)
	if err == nil || !strings.Contains(err.Error(), "not yet in the node's volumesInUse") {
		t.Errorf("error %v of a volume that the Node does not show", err)
	}
	wantInUse(t, n, theVolume)
	wantCalls(t, n.driver)

	show(n.inUse)
	_, err = n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)

	// The agent is started again: what is mounted is in use from the start.
	n.restart(t)
	wantInUse(t, n, theVolume)

	n.driver.failOn("unstage", errors.New("busy"))
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")
	wantInUse(t, n, theVolume)

	// So is what is staged for nobody.
	gone := make(chan struct{}, 9)
	n.restart(t)
	wantInUse(t, n, theVolume)
	n.inUse.Follow(func() { gone <- struct{}{} })
	n.driver.failOn("unstage", nil)
	n.mounter.DriversChanged()
	<-gone
	wantInUse(t, n)
	n.awaitUnstaged(t)
}

func TestAPodThatGoesBeforeItsVolumeIsAttachedHoldsNothing(t *testing.T) {
	n := start(t, &cluster{})
	if err := setUpBriefly(t, n); err == nil {
		t.Fatal("no attachment, no error")
	}
	wantInUse(t, n, theVolume)
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantInUse(t, n)
	wantCalls(t, n.driver)
}

func TestVolumesThatAreNotAttachedAreNotInUse(t *testing.T) {
	c := &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}}
	n := start(t, c)
	_, err := n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	wantInUse(t, n)

	// An agent that finds it looks what the driver's volumes need.
	n.restart(t)
	wantInUse(t, n)
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
}

// The controller takes a volume from the Node before it detaches it.
func TestAVolumeThatIsAboutToBeDetachedIsNotMounted(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	c := &cluster{attachment: attachment(), detaching: end}
	n := start(t, c)
	show(n.inUse)
	_, err := n.mounter.Setup(ctx, request("u1"))
	if err == nil || !strings.Contains(err.Error(), "not attached according to node status") {
		t.Errorf("error %v", err)
	}
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	wantCalls(t, n.driver)
}

// What a driver refuses to stage once more is still staged.
func TestAVolumeIsInUseUntilItIsUnstagedWhenItIsRefusedMeanwhile(t *testing.T) {
	n := start(t, &cluster{attachment: attachment()})
	show(n.inUse)
	n.driver.failOn("unstage", errors.New("busy"))
	n.setUp(t, request("u1"))
	n.tearDown(t, "u1")
	awaitCalls(t, n.driver, "stage", "publish", "unpublish", "unstage")

	// Not all that a driver does is seen as a mount.
	must(t, mount.UnmountBelow(n.root))
	n.driver.failOn("stage", status.Error(codes.InvalidArgument, "no"))
	if _, err := n.mounter.Setup(t.Context(), request("u2")); err == nil {
		t.Fatal("no error of the driver")
	}
	n.driver.said()
	n.tearDown(t, "u2")
	wantInUse(t, n, theVolume)
	n.driver.failOn("unstage", nil)
	n.mounter.DriversChanged()
	n.awaitUnstaged(t)
	if said := n.driver.said(); !slices.Contains(said, "unstage") {
		t.Errorf("calls %v, want the volume unstaged", said)
	}
}

func TestAVolumeThatADriverRefusesIsNotInUseForItsStaging(t *testing.T) {
	n := start(t, &cluster{attachment: attachment()})
	show(n.inUse)
	n.driver.failOn("stage", status.Error(codes.InvalidArgument, "no"))
	if _, err := n.mounter.Setup(t.Context(), request("u1")); err == nil {
		t.Fatal("no error of the driver")
	}
	n.tearDown(t, "u1")
	wantInUse(t, n)
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "stage", "unpublish")
}

func TestWhatTheNodeShowsStaysInUseWhenNotAllCanBeRead(t *testing.T) {
	n := unattached(t)
	shown := []v1.UniqueVolumeName{theVolume}
	names, known := n.inUse.Names(shown)
	if len(names) > 0 || !known {
		t.Errorf("in use %v, known %v", names, known)
	}

	// What is mounted there nobody knows.
	place := filepath.Join(n.root, "plugins/kubernetes.io/csi/fake.csi/0123")
	must(t, os.MkdirAll(filepath.Join(place, "globalmount"), 0o700))
	must(t, mount.Tmpfs(filepath.Join(place, "globalmount"), "mode=0755"))
	n.restart(t)
	names, known = n.inUse.Names(shown)
	if diff := cmp.Diff(shown, names); diff != "" || !known {
		t.Errorf("in use: known %v, %s", known, diff)
	}

	must(t, mount.UnmountBelow(place))
	n.restart(t)
	n.awaitUnstaged(t)
	names, known = n.inUse.Names(shown)
	if len(names) > 0 || !known {
		t.Errorf("in use %v, known %v, of a volume that is gone", names, known)
	}
}
