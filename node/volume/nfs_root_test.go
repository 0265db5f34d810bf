package volume_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/nfsvolume"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/volume"
)

// claimed has one claim, which is bound to an NFS volume.
type claimed struct{ api }

func (c *claimed) PersistentVolumeClaim(context.Context, string, string) (*v1.PersistentVolumeClaim, error) {
	return &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "claim", UID: "claim-uid"},
		Spec:       v1.PersistentVolumeClaimSpec{VolumeName: "pv"},
		Status:     v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound},
	}, nil
}

func (c *claimed) PersistentVolume(context.Context, string) (*v1.PersistentVolume, error) {
	pv := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}}
	pv.Spec.ClaimRef = &v1.ObjectReference{UID: "claim-uid"}
	pv.Spec.MountOptions = []string{"nfsvers=4.2"}
	pv.Spec.NFS = &v1.NFSVolumeSource{Server: "store", Path: "/pv"}
	return pv, nil
}

func TestNFSVolumesOfPodsAndClaims(t *testing.T) {
	testenv.Root(t)
	root, tools := testenv.ShortDir(t), t.TempDir()
	program, log := filepath.Join(tools, "mount"), filepath.Join(tools, "calls")
	script := "#!/bin/sh\necho \"$*\" >> " + log + "\nfor dir; do :; done\n" +
		"exec mount -t tmpfs tmpfs \"$dir\"\n"
	must(t, os.WriteFile(program, []byte(script), 0o755))
	must(t, os.WriteFile(filepath.Join(tools, "mount.nfs"), nil, 0o755))
	objects := &claimed{}
	m := volume.New(volume.Config{
		Root:    root,
		Node:    podenv.Node{Name: "n"},
		Objects: objects,
		Tokens:  objects,
		NFS:     &nfsvolume.Mounter{Program: program, Helpers: []string{tools}},
		Log:     slog.New(slog.DiscardHandler),
	})

	p := pod(
		v1.Volume{Name: "own", VolumeSource: v1.VolumeSource{
			NFS: &v1.NFSVolumeSource{Server: "store", Path: "/own", ReadOnly: true},
		}},
		v1.Volume{Name: "data", VolumeSource: v1.VolumeSource{
			PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"},
		}},
	)

	made := setup(t, m, p)
	volumes := filepath.Join(root, "pods", string(p.UID), "volumes", "kubernetes.io~nfs")
	for name, want := range map[string]volume.Mounted{
		"own":  {Path: filepath.Join(volumes, "own"), ReadOnly: true},
		"data": {Path: filepath.Join(volumes, "pv")},
	} {
		if got := made.ByName[name]; got.Path != want.Path || got.ReadOnly != want.ReadOnly {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
		if on, err := mount.Mounted(want.Path); err != nil || !on {
			t.Errorf("%s is not mounted: %v", want.Path, err)
		}
	}

	calls, err := os.ReadFile(log)
	must(t, err)
	for _, want := range []string{"-o ro -- store:/own ", "-o nfsvers=4.2 -- store:/pv "} {
		if !strings.Contains(string(calls), want) {
			t.Errorf("calls %q, want %q", calls, want)
		}
	}

	for range 2 {
		must(t, m.Teardown(t.Context(), p.UID))
	}

	if left, err := mount.Below(root); err != nil || len(left) > 0 {
		t.Errorf("still mounted: %v, %v", left, err)
	}
}
