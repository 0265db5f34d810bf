package modify

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/refusal"
	"github.com/trivet-node/trivet/internal/kube/event"
)

const (
	pending    = corev1.PersistentVolumeClaimModifyVolumePending
	inProgress = corev1.PersistentVolumeClaimModifyVolumeInProgress
	infeasible = corev1.PersistentVolumeClaimModifyVolumeInfeasible
)

type document = map[string]any

// boundClaim asks for a class and has another.
func boundClaim(wanted, current string) *corev1.PersistentVolumeClaim {
	c := csitest.NewClaim("1Gi", csitest.Waiting)
	c.Spec.VolumeName = csitest.Volume
	c.Status.Phase = corev1.ClaimBound
	c.Status.Capacity = c.Spec.Resources.Requests
	if wanted != "" {
		c.Spec.VolumeAttributesClassName = &wanted
	}
	if current != "" {
		c.Status.CurrentVolumeAttributesClassName = &current
	}
	return c
}

func volumeOf(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: csitest.Volume},
		Spec: corev1.PersistentVolumeSpec{
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

func TestDecideWhichClass(t *testing.T) {
	for _, c := range []struct {
		name, wanted, current string
		status                corev1.PersistentVolumeClaimModifyVolumeStatus
		target, code          string // of the last call
		want                  action
		class                 string
	}{
		{"none", "", "", "", "", "", ignore, ""},
		{"had", "gold", "gold", "", "", "", ignore, ""},
		{"the first", "gold", "", "", "", "", change, "gold"},
		{"another", "gold", "silver", "", "", "", change, "gold"},
		{"that was not there", "gold", "silver", pending, "", "", change, "gold"},
		{"killed while it was under way", "gold", "silver", inProgress, "gold", "", resume, "gold"},
		{"given up while it was under way", "", "", inProgress, "gold", "", resume, "gold"},
		{"replaced while it was under way", "iron", "", inProgress, "gold", "", resume, "gold"},
		{"replaced after a lost answer", "iron", "", inProgress, "gold", "Unavailable", resume, "gold"},
		{"replaced after it failed", "iron", "", inProgress, "gold", "Internal", change, "iron"},
		{"replaced after it was refused", "iron", "", infeasible, "gold", "InvalidArgument", change, "iron"},
		{"refused, and had again", "iron", "iron", infeasible, "gold", "InvalidArgument", change, "iron"},
		{"given up after it was refused", "", "", infeasible, "gold", "InvalidArgument", forget, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := boundClaim(c.wanted, c.current)
			if c.status != "" {
				claim.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{
					Status:                          c.status,
					TargetVolumeAttributesClassName: c.target,
				}
			}
			if c.code != "" {
				claim.Status.Conditions = []corev1.PersistentVolumeClaimCondition{
					{Type: corev1.PersistentVolumeClaimVolumeModifyingVolume},
					{Type: corev1.PersistentVolumeClaimVolumeModifyVolumeError, Reason: c.code},
				}
			}

			d := decide(facts{local: csitest.Here, claim: claim, volume: volumeOf(claim)})
			if d.action != c.want || d.class != c.class {
				t.Errorf("%s %q (%s), want %s %q", d.action, d.class, d.reason, c.want, c.class)
			}
		})
	}
}

func TestDecideWhose(t *testing.T) {
	now := csitest.Born
	cases := []struct {
		name   string
		change func(*facts)
		want   action
	}{
		{"ours", func(*facts) {}, change},
		{"being deleted", func(f *facts) { f.claim.DeletionTimestamp = &metav1.Time{Time: now} }, ignore},
		{"not bound", func(f *facts) { f.claim.Status.Phase = corev1.ClaimPending }, ignore},
		{"volume is not known yet", func(f *facts) { f.volume = nil }, wait},
		{"volume of another claim", func(f *facts) { f.volume.Spec.ClaimRef.UID = "other" }, ignore},
		{"volume of another driver", func(f *facts) { f.volume.Spec.CSI.Driver = "other" }, ignore},
		{"volume on another node", func(f *facts) { f.local.Node = "b" }, ignore},
		{"refused a moment ago", func(f *facts) {
			f.refused = refusal.Refusal[string]{What: "gold", Until: now.Add(time.Second)}
		}, wait},
		{"refused long ago", func(f *facts) {
			f.refused = refusal.Refusal[string]{What: "gold", Until: now}
		}, change},
		{"another one was refused", func(f *facts) {
			f.refused = refusal.Refusal[string]{What: "iron", Until: now.Add(time.Second)}
		}, change},
	}

	for _, c := range cases {
		claim := boundClaim("gold", "")
		f := facts{
			local:  csitest.Here,
			claim:  claim,
			volume: volumeOf(claim),
			now:    now,
		}

		c.change(&f)
		if d := decide(f); d.action != c.want {
			t.Errorf("%s: %s (%s), want %s", c.name, d.action, d.reason, c.want)
		}
	}
}

// cluster has a bound claim without a class, and two classes: "gold", and "wrong", which the driver refuses.
func newCluster(t *testing.T) *csitest.Cluster {
	t.Helper()
	claim := boundClaim("", "")
	c := csitest.NewCluster(t, claim)
	c.Put(volumeOf(claim))
	c.Put(csitest.NewAttributes("gold", "writeBytesPerSecond", "50Mi"))
	c.Put(csitest.NewAttributes("wrong", "wrong", "1"))
	stop := c.Run(func(watched *objects.Watched, events *event.Recorder) []func(context.Context) {
		m := New(Config{
			Local:   csitest.Here,
			Objects: watched,
			Client:  c.Client,
			CSI:     c.CSI,
			Events:  events,
			Log:     c.Log,
		})

		return []func(context.Context){m.Run}
	})

	t.Cleanup(stop)
	return c
}

// ask has the claim ask for a class.
func ask(c *csitest.Cluster, class any) {
	c.T.Helper()
	c.ChangeClaim(csitest.Claim, document{"spec": document{"volumeAttributesClassName": class}})
}

// awaitStatus waits until the claim's status says how a change to a class goes.
func awaitStatus(
	c *csitest.Cluster,
	class string,
	want corev1.PersistentVolumeClaimModifyVolumeStatus,
	conditions int,
) {
	c.T.Helper()
	c.Eventually(class+" is "+string(want), func() bool {
		s := c.ClaimNamed(csitest.Claim).Status
		return s.ModifyVolumeStatus != nil && s.ModifyVolumeStatus.Status == want &&
			s.ModifyVolumeStatus.TargetVolumeAttributesClassName == class && len(s.Conditions) == conditions
	})
}

// awaitHad waits until the claim's volume has a class, and nothing else is said of it.
func awaitHad(c *csitest.Cluster, class string) {
	c.T.Helper()
	c.Eventually("it has "+class, func() bool {
		s := c.ClaimNamed(csitest.Claim).Status
		return s.CurrentVolumeAttributesClassName != nil && *s.CurrentVolumeAttributesClassName == class &&
			s.ModifyVolumeStatus == nil && len(s.Conditions) == 0
	})
	if got := c.VolumeNamed(csitest.Volume).Spec.VolumeAttributesClassName; got == nil || *got != class {
		c.T.Errorf("the volume object has class %v, want %s", got, class)
	}
}

func TestVolumeGetsTheAttributesOfItsClass(t *testing.T) {
	c := newCluster(t)
	ask(c, "gold")
	awaitHad(c, "gold")
	if got := c.CSI.Mutable(csitest.Volume)["writeBytesPerSecond"]; got != "50Mi" {
		t.Errorf("the driver was given %q", got)
	}
	c.Eventually("the event", func() bool { return c.HasEvent("VolumeModifySuccessful") })
}

func TestInfeasibleClassIsReplaced(t *testing.T) {
	c := newCluster(t)
	ask(c, "wrong")
	awaitStatus(c, "wrong", infeasible, 2)
	c.Eventually("the event", func() bool { return c.HasEvent("VolumeModifyFailed") })
	ask(c, "gold")
	awaitHad(c, "gold")
}

func TestInfeasibleClassIsGivenUp(t *testing.T) {
	c := newCluster(t)
	ask(c, "wrong")
	awaitStatus(c, "wrong", infeasible, 2)
	ask(c, nil)
	awaitStatus(c, "wrong", infeasible, 0)
}

func TestClassOfAnotherDriverIsInfeasible(t *testing.T) {
	c := newCluster(t)
	other := csitest.NewAttributes("other", "iops", "1")
	other.DriverName = "other.example.org"
	c.Put(other)
	ask(c, "other")
	awaitStatus(c, "other", infeasible, 2)
	if n := c.CSI.Calls("ControllerModifyVolume"); n > 0 {
		t.Errorf("the driver was called %d times", n)
	}
}

func TestMissingClassIsWaitedFor(t *testing.T) {
	c := newCluster(t)
	ask(c, "late")
	awaitStatus(c, "", pending, 0)
	c.Put(csitest.NewAttributes("late", "readBytesPerSecond", "50Mi"))
	awaitHad(c, "late")
}

func TestChangeIsFinishedAfterALostAnswer(t *testing.T) {
	c := newCluster(t)
	c.CSI.FailOn("ControllerModifyVolume", status.Error(codes.Unavailable, "gone"))
	ask(c, "gold")
	awaitStatus(c, "gold", inProgress, 2)
	c.CSI.FailOn("ControllerModifyVolume", nil)
	awaitHad(c, "gold")
}
