package resize

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
	"github.com/trivet-node/trivet/internal/kube/event"
)

const (
	inProgress     = corev1.PersistentVolumeClaimControllerResizeInProgress
	infeasible     = corev1.PersistentVolumeClaimControllerResizeInfeasible
	nodePending    = corev1.PersistentVolumeClaimNodeResizePending
	nodeInProgress = corev1.PersistentVolumeClaimNodeResizeInProgress
	nodeInfeasible = corev1.PersistentVolumeClaimNodeResizeInfeasible
)

type document = map[string]any

// volumeOf returns the PersistentVolume of a claim on a node.
func volumeOf(c *corev1.PersistentVolumeClaim, size string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: csitest.Volume},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:     corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			NodeAffinity: csitest.Here.Affinity(),
			ClaimRef:     &corev1.ObjectReference{UID: c.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{
					Driver:       csitest.Here.Driver,
					VolumeHandle: csitest.Volume,
				},
			},
		},
	}
}

// boundClaim asks for a size and has another.
func boundClaim(requested, capacity string) *corev1.PersistentVolumeClaim {
	c := csitest.NewClaim(requested, csitest.Waiting)
	c.Spec.VolumeName = csitest.Volume
	c.Status.Phase = corev1.ClaimBound
	c.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(capacity)}
	return c
}

func TestDecideWhatSize(t *testing.T) {
	for _, c := range []struct {
		name, requested, capacity, allocated, volume string
		step                                         corev1.ClaimResourceStatus
		want                                         action
		size                                         string
	}{
		{"more", "2Gi", "1Gi", "", "1Gi", "", grow, "2Gi"},
		{"had", "2Gi", "2Gi", "", "2Gi", "", ignore, ""},
		{"kubelet's turn", "2Gi", "1Gi", "2Gi", "2Gi", nodePending, ignore, ""},
		{"kubelet works", "2Gi", "1Gi", "2Gi", "2Gi", nodeInProgress, ignore, ""},
		{"kubelet failed", "2Gi", "1Gi", "2Gi", "2Gi", nodeInfeasible, ignore, ""},
		{"more than kubelet works on", "2Gi", "1Gi", "1500Mi", "1500Mi", nodeInProgress, grow, "2Gi"},
		{"less than what may be under way", "2Gi", "1Gi", "3Gi", "1Gi", inProgress, grow, "3Gi"},
		{"less than what failed", "2Gi", "1Gi", "3Gi", "1Gi", infeasible, grow, "2Gi"},
		{"killed before the status was written", "2Gi", "1Gi", "2Gi", "2Gi", inProgress, grow, "2Gi"},
		{"given up while it was under way", "1Gi", "1Gi", "3Gi", "1Gi", inProgress, reset, ""},
		{"given up after it failed", "1Gi", "1Gi", "3Gi", "1Gi", infeasible, reset, ""},
		{"given up with kubelet", "1Gi", "1Gi", "1Gi", "1Gi", nodePending, ignore, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := boundClaim(c.requested, c.capacity)
			claim.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{
				corev1.ResourceStorage: c.step,
			}
			if c.allocated != "" {
				claim.Status.AllocatedResources = corev1.ResourceList{
					corev1.ResourceStorage: resource.MustParse(c.allocated),
				}
			}

			d := decide(facts{local: csitest.Here, claim: claim, volume: volumeOf(claim, c.volume)})
			if d.action != c.want || d.action == grow && d.size.String() != c.size {
				t.Errorf("%s %s (%s), want %s %s", d.action, d.size.String(), d.reason, c.want, c.size)
			}
		})
	}
}

func TestDecideWhose(t *testing.T) {
	now := csitest.Born
	for _, c := range []struct {
		name   string
		change func(*facts)
		want   action
		after  time.Duration
	}{
		{"ours", func(*facts) {}, grow, 0},
		{"being deleted", func(f *facts) { f.claim.DeletionTimestamp = &metav1.Time{Time: now} }, ignore, 0},
		{"not bound", func(f *facts) { f.claim.Status.Phase = corev1.ClaimPending }, ignore, 0},
		{"volume is not known yet", func(f *facts) { f.volume = nil }, wait, volumeDelay},
		{"volume of another claim", func(f *facts) { f.volume.Spec.ClaimRef.UID = "other" }, ignore, 0},
		{"volume that is reserved for nobody", func(f *facts) { f.volume.Spec.ClaimRef = nil }, ignore, 0},
		{"volume of another driver", func(f *facts) { f.volume.Spec.CSI.Driver = "other" }, ignore, 0},
		{"volume on another node", func(f *facts) { f.local.Node = "b" }, ignore, 0},
		{"refused a moment ago", func(f *facts) {
			f.refused = refusal.Refusal[int64]{What: 2 << 30, Until: now.Add(time.Second)}
		}, wait, time.Second},
		{"refused long ago", func(f *facts) {
			f.refused = refusal.Refusal[int64]{What: 2 << 30, Until: now}
		}, grow, 0},
		{"another size was refused", func(f *facts) {
			f.refused = refusal.Refusal[int64]{What: 3 << 30, Until: now.Add(time.Second)}
		}, grow, 0},
		{"kubelet's turn by a condition", func(f *facts) {
			f.volume.Spec.Capacity[corev1.ResourceStorage] = resource.MustParse("2Gi")
			f.claim.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{
				Type:   corev1.PersistentVolumeClaimFileSystemResizePending,
				Status: corev1.ConditionTrue,
			}}
		}, ignore, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := boundClaim("2Gi", "1Gi")
			f := facts{
				local:  csitest.Here,
				claim:  claim,
				volume: volumeOf(claim, "1Gi"),
				now:    now,
			}

			c.change(&f)
			if d := decide(f); d.action != c.want || d.after != c.after {
				t.Errorf("%s after %s (%s), want %s after %s", d.action, d.after, d.reason, c.want, c.after)
			}
		})
	}
}

// newCluster runs a resizer in a cluster with a bound claim of 1 GiB.
func newCluster(t *testing.T) *csitest.Cluster {
	t.Helper()
	claim := boundClaim("1Gi", "1Gi")
	c := csitest.NewCluster(t, claim)
	c.Put(volumeOf(claim, "1Gi"))
	stop := c.Run(func(watched *objects.Watched, events *event.Recorder) []func(context.Context) {
		r := New(Config{
			Local:   csitest.Here,
			Objects: watched,
			Client:  c.Client,
			CSI:     c.CSI,
			Events:  events,
			Log:     c.Log,
		})

		return []func(context.Context){r.Run}
	})

	t.Cleanup(stop)
	return c
}

func request(c *csitest.Cluster, size string) {
	c.T.Helper()
	requests := document{"requests": document{"storage": size}}
	c.ChangeClaim(csitest.Claim, document{"spec": document{"resources": requests}})
}

func step(c *csitest.Cluster) corev1.ClaimResourceStatus {
	c.T.Helper()
	return objects.Growth(c.ClaimNamed(csitest.Claim))
}

func storageOf(list corev1.ResourceList) string {
	size := list[corev1.ResourceStorage]
	return size.String()
}

func TestVolumeAndStatusGrow(t *testing.T) {
	c := newCluster(t)
	request(c, "2Gi")
	c.Eventually("the growth", func() bool {
		s := c.ClaimNamed(csitest.Claim).Status
		return storageOf(s.Capacity) == "2Gi" && storageOf(s.AllocatedResources) == "2Gi" &&
			step(c) == "" && len(s.Conditions) == 0
	})
	if got := storageOf(c.VolumeNamed(csitest.Volume).Spec.Capacity); got != "2Gi" {
		t.Errorf("the volume object has %s", got)
	}
	c.Eventually("the event", func() bool { return c.HasEvent("VolumeResizeSuccessful") })
}

func TestKubeletIsToldToGrowTheFileSystem(t *testing.T) {
	c := newCluster(t)
	c.CSI.GrowOnNode()
	request(c, "2Gi")
	c.Eventually("the growth", func() bool {
		s := c.ClaimNamed(csitest.Claim).Status
		return step(c) == nodePending && storageOf(s.Capacity) == "1Gi" &&
			storageOf(s.AllocatedResources) == "2Gi" && len(s.Conditions) == 1 &&
			s.Conditions[0].Type == corev1.PersistentVolumeClaimFileSystemResizePending
	})
	if got := storageOf(c.VolumeNamed(csitest.Volume).Spec.Capacity); got != "2Gi" {
		t.Errorf("the volume object has %s", got)
	}

	c.Eventually("the event", func() bool { return c.HasEvent("FileSystemResizeRequired") })
}

func TestInfeasibleGrowthIsRecoveredByASmallerOne(t *testing.T) {
	c := newCluster(t)
	request(c, "20Gi")
	c.Eventually("it is infeasible", func() bool {
		s := c.ClaimNamed(csitest.Claim).Status
		return step(c) == infeasible && storageOf(s.AllocatedResources) == "20Gi" &&
			len(s.Conditions) == 1 &&
			s.Conditions[0].Type == corev1.PersistentVolumeClaimControllerResizeError &&
			s.Conditions[0].Message == "too large"
	})

	c.Eventually("the event", func() bool { return c.HasEvent("VolumeResizeFailed") })

	request(c, "3Gi")
	c.Eventually("the smaller one", func() bool {
		s := c.ClaimNamed(csitest.Claim).Status
		return storageOf(s.Capacity) == "3Gi" && storageOf(s.AllocatedResources) == "3Gi" &&
			step(c) == "" && len(s.Conditions) == 0
	})
}

func TestGrowthThatWasGivenUpLeavesNoTrace(t *testing.T) {
	c := newCluster(t)
	request(c, "20Gi")
	c.Eventually("it is infeasible", func() bool { return step(c) == infeasible })
	request(c, "1Gi")
	c.Eventually("the status is as before", func() bool {
		return step(c) == "" && len(c.ClaimNamed(csitest.Claim).Status.Conditions) == 0
	})
}

func TestGrowthIsTriedAgainAfterALostAnswer(t *testing.T) {
	c := newCluster(t)
	c.CSI.FailOn("ControllerExpandVolume", status.Error(codes.Unavailable, "gone"))
	request(c, "2Gi")
	c.Eventually("it is under way", func() bool { return step(c) == inProgress })
	c.CSI.FailOn("ControllerExpandVolume", nil)
	c.Eventually("it is done", func() bool {
		return storageOf(c.ClaimNamed(csitest.Claim).Status.Capacity) == "2Gi"
	})
}

// Others write conditions, too, and a message may be longer than the API takes.
func TestConditionsOfOthersStay(t *testing.T) {
	c := boundClaim("2Gi", "1Gi")
	c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{
		{Type: corev1.PersistentVolumeClaimResizing},
		{Type: "Other"},
	}

	got := growth{
		condition: corev1.PersistentVolumeClaimControllerResizeError,
		message:   string(make([]byte, 2*maxMessage)),
	}.conditions(c)
	if len(got) != 2 || got[0].Type != "Other" || len(got[1].Message) != maxMessage {
		t.Errorf("conditions %v", got)
	}
	if got := (growth{}).conditions(c); len(got) != 1 || got[0].Type != "Other" {
		t.Errorf("without a condition of ours: %v", got)
	}
}
