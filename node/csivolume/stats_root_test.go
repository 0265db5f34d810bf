package csivolume_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/csivolume"
)

// published is a node where the pod u1 has a volume.
func published(t *testing.T) *node {
	t.Helper()
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	_, err := n.mounter.Setup(t.Context(), request("u1"))
	must(t, err)
	t.Cleanup(func() {
		must(t, n.mounter.Teardown(context.WithoutCancel(t.Context()), "u1"))
		n.awaitUnstaged(t)
	})
	wantCalls(t, n.driver, "stage", "publish")
	return n
}

func TestDriversAreAskedForPublishedVolumesOnceInAWhile(t *testing.T) {
	n := published(t)
	want := []csivolume.VolumeStats{{
		Pod:    "u1",
		Volume: "data",
		Spec:   "pv1",
		Driver: "fake.csi",
		FsStats: statsapi.FsStats{
			AvailableBytes: new(uint64(60)),
			CapacityBytes:  new(uint64(100)),
			UsedBytes:      new(uint64(40)),
			Inodes:         new(uint64(10)),
			InodesFree:     new(uint64(0)),
			InodesUsed:     new(uint64(4)),
		},
	}}

	for range 3 {
		got, err := n.mounter.VolumeStats(t.Context())
		must(t, err)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(statsapi.FsStats{}, "Time")); diff != "" {
			t.Error(diff)
		}
		if time.Since(got[0].Time.Time) > time.Hour {
			t.Errorf("time %v", got[0].Time)
		}
	}

	wantCalls(t, n.driver, "stats handle")
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
	if got, err := n.mounter.VolumeStats(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("after the teardown: %+v, %v", got, err)
	}
}

func TestVolumeOfABlockDeviceHasStats(t *testing.T) {
	n := start(t, &cluster{spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}})
	r := request("u1")
	r.Block = true
	r.PV.Spec.VolumeMode = new(v1.PersistentVolumeBlock)
	_, err := n.mounter.Setup(t.Context(), r)
	must(t, err)
	got, err := n.mounter.VolumeStats(t.Context())
	must(t, err)
	if len(got) != 1 || !got[0].Block || got[0].Volume != "data" || got[0].Pod != "u1" {
		t.Errorf("%+v", got)
	}
	must(t, n.mounter.Teardown(t.Context(), "u1"))
	n.awaitUnstaged(t)
}

func TestDriverThatFailsHasNoStats(t *testing.T) {
	n := published(t)
	n.driver.fail["stats handle"] = errors.New("broken")
	for range 2 {
		if got, err := n.mounter.VolumeStats(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	wantCalls(t, n.driver, "stats handle")
}

func TestNobodyWaitsForADriverThatHangs(t *testing.T) {
	n := published(t)
	n.driver.hang = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if got, err := n.mounter.VolumeStats(ctx); err != nil || len(got) > 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}

	// What it says in the end is there for a later call, without a second question.
	close(n.driver.hang)
	for range retry.Every(t.Context(), 10*time.Millisecond) {
		if got, err := n.mounter.VolumeStats(t.Context()); err != nil {
			t.Fatal(err)
		} else if len(got) == 1 {
			break
		}
	}
	wantCalls(t, n.driver, "stats handle")
}
