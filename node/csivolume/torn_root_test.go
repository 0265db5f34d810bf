package csivolume_test

import (
	"os"
	"path/filepath"
	"testing"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/internal/mount"
)

// A power loss takes the mounts, and the content of files that were written just before.
func TestRecordsThatAPowerLossHasTornCountAsNone(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	lose := func(uid string) {
		t.Helper()
		must(t, mount.UnmountBelow(n.root))
		files, err := filepath.Glob(filepath.Join(
			n.root,
			"plugins/kubernetes.io/csi/fake.csi/*/vol_data.json",
		))

		must(t, err)
		files = append(
			files,
			filepath.Join(n.root, "pods", uid, "volumes/kubernetes.io~csi/pv1/vol_data.json"),
		)
		if len(files) != 2 {
			t.Fatalf("records %v, want one of the stage and one of the pod", files)
		}

		for _, f := range files {
			must(t, os.Truncate(f, 0))
		}
	}

	_, err := n.mounter.Setup(t.Context(), request("still-wanted"))
	must(t, err)
	lose("still-wanted")
	_, err = n.mounter.Setup(t.Context(), request("still-wanted"))
	must(t, err)
	must(t, n.mounter.Teardown(t.Context(), "still-wanted"))
	n.awaitUnstaged(t)
	wantCalls(t, n.driver, "stage", "publish", "stage", "publish", "unpublish", "unstage")

	_, err = n.mounter.Setup(t.Context(), request("gone"))
	must(t, err)
	lose("gone")
	must(t, n.mounter.Teardown(t.Context(), "gone"))
	n.restart(t)
	n.awaitUnstaged(t)
	left, _ := filepath.Glob(filepath.Join(n.root, "pods/gone/volumes/kubernetes.io~csi/*"))
	if len(left) > 0 {
		t.Errorf("left of a pod that is gone: %v", left)
	}
}
