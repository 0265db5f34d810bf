package provision

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	inProgress     = corev1.PersistentVolumeClaimControllerResizeInProgress
	infeasible     = corev1.PersistentVolumeClaimControllerResizeInfeasible
	nodeInProgress = corev1.PersistentVolumeClaimNodeResizeInProgress
)

const pvPath = "persistentvolumes/pvc-uid-1"

// bind does what the controller-manager does with a new volume.
func (f *fixture) bind() {
	f.t.Helper()
	f.eventually("the volume object", func() bool { return f.volume("pvc-uid-1") != nil })
	f.server.change(pvPath, document{"status": document{"phase": "Bound"}})
	f.server.change(claimPath, document{
		"spec":   document{"volumeName": "pvc-uid-1"},
		"status": document{"phase": "Bound", "capacity": document{"storage": "1Gi"}},
	})
}

// The class retains, somebody changes his mind, and deletes the object before the claim.
func TestContentGoesThoughTheObjectWasDeletedFirst(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	f.server.change("storageclasses/fast", document{"reclaimPolicy": "Retain"})
	defer f.run()()

	f.bind()

	// as earlier versions made it
	f.server.change(pvPath, document{"metadata": document{"finalizers": nil}})
	f.eventually("the finalizer", func() bool { return hasFinalizer(f.volume("pvc-uid-1")) })
	f.server.change(pvPath, document{"spec": document{"persistentVolumeReclaimPolicy": "Delete"}})
	f.server.remove(pvPath)
	if f.volume("pvc-uid-1") == nil || f.disk.count() != 1 {
		t.Fatal("the object or its content went before the claim")
	}

	f.server.remove(claimPath)
	f.server.change(pvPath, document{"status": document{"phase": "Released"}})
	f.eventually(
		"content and object are gone",
		func() bool { return f.volume("pvc-uid-1") == nil && f.disk.count() == 0 },
	)
}

// Whoever may write PersistentVolumes writes one with the handle of somebody else's volume, and deletes his
// claim.
func TestVolumeIsKeptForAnotherObjectThatHasIt(t *testing.T) {
	for name, otherNode := range map[string]bool{"on this node": false, "said to be on another node": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, wanting("1Gi", "fast", "a"))
			defer f.run()()

			f.bind()
			rogue := f.volume("pvc-uid-1")
			rogue.Name, rogue.UID, rogue.ResourceVersion = "rogue", "uid-rogue", ""
			rogue.TypeMeta = metav1.TypeMeta{Kind: "PersistentVolume", APIVersion: "v1"}
			rogue.Status.Phase = corev1.VolumeReleased
			f.server.add("persistentvolumes/rogue", rogue)
			f.eventually("the event", func() bool { return f.event("VolumeFailedDelete") })

			f.server.remove("persistentvolumes/rogue")
			f.eventually("the rogue goes", func() bool { return f.volume("rogue") == nil })
			if f.disk.count() != 1 {
				t.Fatal("somebody else's volume is gone")
			}

			if otherNode {
				f.server.change(pvPath, document{"spec": document{"nodeAffinity": nil}})
				f.server.add("persistentvolumes/rogue", rogue)
				f.server.remove("persistentvolumes/rogue")
				f.eventually("the rogue goes", func() bool { return f.volume("rogue") == nil })
				if f.disk.count() != 1 {
					t.Fatal("somebody else's volume is gone")
				}
			}
		})
	}
}

func TestRetainedMeanwhileIsNotDestroyed(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	stop := f.run()
	f.bind()
	stop()
	p, err := New(
		Config{
			Driver:      testDriver,
			TopologyKey: testKey,
			Node:        "a",
			Dir:         t.TempDir(),
			Client:      f.client,
			CSI:         f.disk,
		},
	)
	if err != nil {
		t.Fatal(err)
	}

	stale := f.volume("pvc-uid-1")
	stale.Status.Phase = corev1.VolumeReleased
	f.server.change(
		pvPath,
		document{
			"spec":   document{"persistentVolumeReclaimPolicy": "Retain"},
			"status": document{"phase": "Released"},
		},
	)
	if err := p.destroy(t.Context(), stale); err != nil || f.disk.count() != 1 {
		t.Errorf("destroyed by what the cache said: %v", err)
	}
}

func (f *fixture) claim() *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{}
	f.server.read(claimPath, c)
	return c
}

func (f *fixture) ask(size string) {
	f.server.change(
		claimPath,
		document{"spec": document{"resources": document{"requests": document{"storage": size}}}},
	)
}

func storageOf(list corev1.ResourceList) string {
	size := list[corev1.ResourceStorage]
	return size.String()
}

func TestStatusTellsHowFarAGrowthHasCome(t *testing.T) {
	for _, onNode := range []bool{false, true} {
		f := newFixture(t, wanting("1Gi", "fast", "a"))
		f.disk.onNode = onNode
		stop := f.run()
		f.bind()
		f.ask("2Gi")
		f.eventually("the growth", func() bool {
			s := f.claim().Status
			if storageOf(s.AllocatedResources) != "2Gi" {
				return false
			}

			if onNode {
				return stepOf(f.claim()) == corev1.PersistentVolumeClaimNodeResizePending &&
					storageOf(s.Capacity) == "1Gi" &&
					len(s.Conditions) == 1 &&
					s.Conditions[0].Type == corev1.PersistentVolumeClaimFileSystemResizePending
			}

			return stepOf(f.claim()) == "" && storageOf(s.Capacity) == "2Gi" && len(s.Conditions) == 0
		})
		if got := storageOf(f.volume("pvc-uid-1").Spec.Capacity); got != "2Gi" {
			t.Errorf("the volume object has %s", got)
		}

		stop()
	}
}

func TestInfeasibleGrowthIsRecoveredByASmallerOne(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	defer f.run()()

	f.bind()
	f.ask("20Gi")
	f.eventually("it is infeasible", func() bool {
		s := f.claim().Status
		return stepOf(f.claim()) == infeasible && storageOf(s.AllocatedResources) == "20Gi" &&
			len(s.Conditions) == 1 &&
			s.Conditions[0].Type == corev1.PersistentVolumeClaimControllerResizeError &&
			s.Conditions[0].Message == "too large"
	})

	f.ask("3Gi")
	f.eventually("the smaller one", func() bool {
		s := f.claim().Status
		return storageOf(s.Capacity) == "3Gi" && storageOf(s.AllocatedResources) == "3Gi" &&
			stepOf(f.claim()) == "" &&
			len(s.Conditions) == 0
	})
}

func TestGrowthThatWasGivenUpLeavesNoTrace(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	defer f.run()()

	f.bind()
	f.ask("20Gi")
	f.eventually(
		"it is infeasible",
		func() bool { return stepOf(f.claim()) == infeasible },
	)

	f.ask("1Gi")
	f.eventually(
		"the status is as before",
		func() bool { return stepOf(f.claim()) == "" && len(f.claim().Status.Conditions) == 0 },
	)
}

func TestGrowth(t *testing.T) {
	class := newClass(storagev1.VolumeBindingImmediate)
	claim := wanting("2Gi", "fast", "a")
	claim.Status.Phase = corev1.ClaimBound
	for _, c := range []struct {
		name, capacity, allocated, volume string
		step                              corev1.ClaimResourceStatus
		want                              string // "": nothing
	}{
		{"more", "1Gi", "", "1Gi", "", "2Gi"},
		{"had", "2Gi", "", "2Gi", "", ""},
		{"kubelet's turn", "1Gi", "2Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizePending, ""},
		{"kubelet failed", "1Gi", "2Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizeInfeasible, ""},
		{"more than kubelet works on", "1Gi", "1500Mi", "1500Mi", nodeInProgress, "2Gi"},
		{"less than what may be under way", "1Gi", "3Gi", "1Gi", inProgress, "3Gi"},
		{"less than what failed", "1Gi", "3Gi", "1Gi", infeasible, "2Gi"},
		{"killed before the status was written", "1Gi", "2Gi", "2Gi", inProgress, "2Gi"},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := claim.DeepCopy()
			claim.Status.Capacity = corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse(c.capacity),
			}
			claim.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{
				corev1.ResourceStorage: c.step,
			}
			if c.allocated != "" {
				claim.Status.AllocatedResources = corev1.ResourceList{
					corev1.ResourceStorage: resource.MustParse(c.allocated),
				}
			}

			pv := persistentVolume(
				facts{
					driver:      testDriver,
					topologyKey: testKey,
					node:        "a",
					claim:       claim,
					class:       class,
				},
				volumeOn("a"),
			)

			pv.Spec.Capacity[corev1.ResourceStorage] = resource.MustParse(c.volume)
			got, due := growth(claim, pv, testDriver, testKey, "a")
			if due != (c.want != "") || due && got.String() != c.want {
				t.Errorf("growth to %s, %t; want %q", got.String(), due, c.want)
			}
		})
	}
}

func TestGrowthIsTriedAgainAfterALostAnswer(t *testing.T) {
	f := newFixture(t, wanting("1Gi", "fast", "a"))
	defer f.run()()

	f.bind()
	f.disk.mu.Lock()
	f.disk.fail["ControllerExpandVolume"] = status.Error(codes.Unavailable, "gone")
	f.disk.mu.Unlock()
	f.ask("2Gi")
	f.eventually(
		"it is under way",
		func() bool { return stepOf(f.claim()) == inProgress },
	)

	f.disk.mend()
	f.eventually("it is done", func() bool { return storageOf(f.claim().Status.Capacity) == "2Gi" })
}
