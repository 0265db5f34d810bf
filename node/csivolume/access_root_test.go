package csivolume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/node/reason"
	"github.com/trivet-node/trivet/node/volume"
)

// groupOf is the group that owns the root of what a volume is made of.
func groupOf(t *testing.T, path string) uint32 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return st.Gid
}

func TestReadOnlyVolumesAreNotGivenToTheGroup(t *testing.T) {
	n := start(
		t,
		&cluster{
			spec: storagev1.CSIDriverSpec{
				AttachRequired: new(false),
				FSGroupPolicy:  new(storagev1.FileFSGroupPolicy),
			},
		},
	)

	of := func(uid string, readOnly bool) volume.Request {
		r := request(uid)
		r.Pod.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: new(int64(1234))}
		r.FSGroup, r.ReadOnly = new(int64(1234)), readOnly
		return r
	}

	provided, err := n.mounter.Setup(t.Context(), of("reader", true))
	must(t, err)
	if gid := groupOf(t, provided.Path); gid != 0 {
		t.Errorf("a read-only volume belongs to group %d", gid)
	}

	provided, err = n.mounter.Setup(t.Context(), of("writer", false))
	must(t, err)
	if gid := groupOf(t, provided.Path); gid != 1234 {
		t.Errorf("a volume belongs to group %d", gid)
	}

	must(t, errors.Join(n.mounter.Teardown(t.Context(), "reader"), n.mounter.Teardown(t.Context(), "writer")))
	n.awaitUnstaged(t)
}

func TestReadWriteOncePodKeepsASecondPodOut(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	of := func(uid string) volume.Request {
		r := request(uid)
		r.PV.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
		return r
	}

	for range 2 {
		_, err := n.mounter.Setup(t.Context(), of("first"))
		must(t, err)
	}

	_, err := n.mounter.Setup(t.Context(), of("second"))
	const want = `MountVolume.SetUp failed for volume "pv1" : ` +
		"volume uses the ReadWriteOncePod access mode and is already in use by another pod"
	if e, ok := errors.AsType[*reason.Error](err); !ok || e.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}

	if _, err := os.Lstat(filepath.Join(n.root, "pods/second/volumes/kubernetes.io~csi/pv1")); !errors.Is(
		err,
		os.ErrNotExist,
	) {
		t.Errorf("the second pod has the volume in its directory: %v", err)
	}

	must(t, n.mounter.Teardown(t.Context(), "first"))
	n.awaitUnstaged(t)
	_, err = n.mounter.Setup(t.Context(), of("second"))
	must(t, err)
	must(t, n.mounter.Teardown(t.Context(), "second"))
	n.awaitUnstaged(t)
	wantCalls(
		t,
		n.driver,
		"stage",
		"publish",
		"unpublish",
		"unstage",
		"stage",
		"publish",
		"unpublish",
		"unstage",
	)
}
