package forget_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/forget"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
)

// gone is a node that does not exist; csitest.Node does.
const gone = "gone"

// volumeOn returns a bound volume of the driver on a node.
func volumeOn(name, node string) *corev1.PersistentVolume {
	on := objects.Local{Driver: csitest.Here.Driver, TopologyKey: csitest.Here.TopologyKey, Node: node}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			UID:         types.UID("uid-of-" + name),
			Finalizers:  []string{objects.Finalizer, "kubernetes.io/pv-protection"},
			Annotations: map[string]string{objects.ProvisionedBy: on.Driver},
		},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: on.Driver, VolumeHandle: name},
			},
			ClaimRef:     &corev1.ObjectReference{Namespace: csitest.Namespace, Name: csitest.Claim},
			NodeAffinity: on.Affinity(),
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}
}

// fixture is a cluster with a volume on each of two nodes, of which one is gone, and one of another driver.
type fixture struct {
	*csitest.Cluster
	events    *event.Recorder
	forgetter *forget.Forgetter
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	c := csitest.NewCluster(t)
	c.Put(volumeOn("here", csitest.Node))
	c.Put(volumeOn("there", gone))
	other := volumeOn("other", gone)
	other.Spec.CSI.Driver = "csi.example.org"
	c.Put(other)

	events := event.New(kube.Events(c.Client), event.Config{Component: "test", Log: c.Log})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	group.Go(func() { events.Run(ctx) })
	t.Cleanup(func() { stop(); group.Wait() })
	return &fixture{c, events, newForgetter(c, events)}
}

func newForgetter(c *csitest.Cluster, events *event.Recorder) *forget.Forgetter {
	return forget.New(forget.Config{
		Driver:      csitest.Here.Driver,
		TopologyKey: csitest.Here.TopologyKey,
		Client:      c.Client,
		Events:      events,
		Log:         c.Log,
		Period:      10 * time.Millisecond,
	})
}

// run runs the loop until the returned function is called.
func (f *fixture) run(after time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(f.T.Context())
	var group sync.WaitGroup
	group.Go(func() { f.forgetter.Run(ctx, forget.NewTurn(f.Client, "kube-system", "turn", "test"), after) })
	return func() { cancel(); group.Wait() }
}

func TestANodeIsForgottenAtOnce(t *testing.T) {
	f := newFixture(t)
	if _, err := f.forgetter.Node(t.Context(), csitest.Node); !errors.Is(err, forget.ErrExists) {
		t.Errorf("a node that exists: %v", err)
	}

	dropped, err := f.forgetter.Node(t.Context(), gone)
	const want = "[PersistentVolume there (PersistentVolumeClaim ns/data)]"
	if err != nil || fmt.Sprint(dropped) != want {
		t.Errorf("forgot %v, %v, want %s", dropped, err, want)
	}
	if f.VolumeNamed("there") != nil || f.VolumeNamed("here") == nil || f.VolumeNamed("other") == nil {
		t.Error("the volume is left, or another one is gone")
	}
	if dropped, err := f.forgetter.Node(t.Context(), gone); err != nil || len(dropped) != 0 {
		t.Errorf("once more: %v, %v", dropped, err)
	}
	f.Eventually("an event", func() bool { return f.HasEvent("NodeForgotten") })
}

func TestWhatOthersKeepIsLeftToThem(t *testing.T) {
	f := newFixture(t)
	pv := volumeOn("kept", gone)
	pv.Finalizers = append(pv.Finalizers, "example.org/backup")
	f.Put(pv)
	if _, err := f.forgetter.Node(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	left := f.VolumeNamed("kept")
	if left == nil || left.DeletionTimestamp == nil ||
		!slices.Equal(left.Finalizers, []string{"example.org/backup"}) {
		t.Errorf("left: %+v", left)
	}
}

func TestVolumesOfAMissingNodeAreMarked(t *testing.T) {
	f := newFixture(t)
	defer f.run(time.Hour)()
	f.Eventually("the mark", func() bool {
		_, err := time.Parse(time.RFC3339, f.VolumeNamed("there").Annotations[forget.MissingSince])
		return err == nil
	})
	f.Eventually("an event", func() bool { return f.HasEvent("NodeMissing") })
	if here := f.VolumeNamed("here"); here.Annotations[forget.MissingSince] != "" {
		t.Error("a volume of a node that exists is marked")
	}

}

// The time is that of the mark, which another process may have made.
func TestAMissingNodeIsForgottenAfterItsTime(t *testing.T) {
	f := newFixture(t)
	f.ChangeVolume("there", since(time.Now().Add(-2*time.Hour)))
	defer f.run(10 * time.Millisecond)()
	f.Eventually("the end of the volume", func() bool { return f.VolumeNamed("there") == nil })
	if f.VolumeNamed("here") == nil || f.VolumeNamed("other") == nil {
		t.Error("another volume is gone")
	}
}

// The mark may be of a time since which the node was there, with nobody to look.
func TestAMarkThatNobodyLookedAfterIsWaitedFor(t *testing.T) {
	f := newFixture(t)
	f.ChangeVolume("there", since(time.Now().Add(-48*time.Hour)))
	f.Put(volumeOn("unmarked", gone))
	defer f.run(time.Hour)()
	marked := func() bool { return f.VolumeNamed("unmarked").Annotations[forget.MissingSince] != "" }
	f.Eventually("a look at all volumes", marked)
	f.ChangeVolume("unmarked", map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		forget.MissingSince: nil,
	}}})
	f.Eventually("another one", marked)
	if f.VolumeNamed("there") == nil {
		t.Error("the volume is gone")
	}
}

// A driver may call its node as it likes; the label of the Node says how.
func TestANodeOfAnotherNameExists(t *testing.T) {
	f := newFixture(t)
	f.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name:   "ip-10-0-0-1",
		UID:    "node-2",
		Labels: map[string]string{csitest.Here.TopologyKey: gone},
	}})
	if dropped, err := f.forgetter.Node(t.Context(), gone); !errors.Is(err, forget.ErrExists) {
		t.Errorf("forgot %v, %v", dropped, err)
	}

	f.ChangeVolume("there", since(time.Now().Add(-2*time.Hour)))
	defer f.run(10 * time.Millisecond)()
	f.Eventually("no mark", func() bool {
		return f.VolumeNamed("there").Annotations[forget.MissingSince] == ""
	})
}

func TestANodeThatComesBackIsNotForgotten(t *testing.T) {
	f := newFixture(t)
	f.ChangeVolume("there", since(time.Now().Add(-2*time.Hour)))
	f.ChangeVolume("here", since(time.Now().Add(-2*time.Hour)))
	f.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: gone, UID: "node-2"}})
	defer f.run(time.Hour)()
	for _, name := range []string{"here", "there"} {
		f.Eventually("no mark on "+name, func() bool {
			return f.VolumeNamed(name).Annotations[forget.MissingSince] == ""
		})
	}
}

func since(t time.Time) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		forget.MissingSince: t.UTC().Format(time.RFC3339),
	}}}
}
