package alarm_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/alarm"
	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// node has volumes, some of which are damaged.
type node struct {
	// mu guards what follows.
	mu  sync.Mutex
	all map[string]volume.Volume
}

func (n *node) set(id string, damage error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.all == nil {
		n.all = map[string]volume.Volume{}
	}
	n.all[id] = volume.Volume{Spec: volume.Spec{ID: id}, Damage: damage}
}

func (n *node) delete(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, id)
}

func (n *node) Damaged() (ill []volume.Volume) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.all {
		if v.Damage != nil {
			ill = append(ill, v)
		}
	}
	slices.SortFunc(ill, func(a, b volume.Volume) int { return strings.Compare(a.ID, b.ID) })
	return ill
}

func (n *node) Get(id string) (volume.Volume, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if v, ok := n.all[id]; ok {
		return v, nil
	}
	return volume.Volume{}, volume.ErrNotFound
}

func (n *node) Snapshot(string) (volume.Volume, error) { return volume.Volume{}, volume.ErrNotFound }

var errLost = fmt.Errorf("%w: removed", volume.ErrLost)

// Each change is told once, however often it is looked.
func TestChangesAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &node{}
		n.set("kept", nil)
		n.set("lost", errLost)
		n.set("deleted", errLost)

		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go alarm.New(n, func(changed []volume.Volume) {
			for _, v := range changed {
				told = append(told, fmt.Sprint(v.ID, v.Damage != nil))
			}
		}).Run(ctx)

		wait := func() {
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		wait()
		n.set("lost", nil)
		n.delete("deleted")
		wait()
		n.set("lost", errLost)
		wait()
		want := []string{"deletedtrue", "losttrue", "lostfalse", "losttrue"}
		if !slices.Equal(told, want) {
			t.Errorf("told %v, want %v", told, want)
		}
	})
}

func TestLogNamesTheFirstOfMany(t *testing.T) {
	var text strings.Builder
	tell := alarm.ToLog(slog.New(slog.NewTextHandler(&text, nil)))
	many := make([]volume.Volume, 5000)
	for i := range many {
		many[i].Damage = errLost
	}
	tell(many)
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != 51 || !strings.Contains(lines[50], "volumes=4950") {
		t.Errorf("%d lines, the last one: %s", len(lines), lines[len(lines)-1])
	}
}

// bound is the PersistentVolume of a volume, which a claim of that name has.
func bound(handle, claim string) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-" + handle}}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: csitest.Here.Driver, VolumeHandle: handle}
	pv.Spec.NodeAffinity = csitest.Here.Affinity()
	pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: csitest.Namespace, Name: claim, UID: "uid-1"}
	return pv
}

// said are the events, as "OBJECT REASON".
func said(c *csitest.Cluster) (events []string) {
	for _, e := range kubetest.All[corev1.Event](c.Server, "events") {
		events = append(events, e.InvolvedObject.Kind+"/"+e.InvolvedObject.Name+" "+e.Reason)
	}
	slices.Sort(events)
	return events
}

func TestClaimsAndTheNodeHaveEvents(t *testing.T) {
	c := csitest.NewCluster(t)
	c.Put(bound("pvc-1", "data"))
	tell := make(chan []volume.Volume)
	stop := c.Run(func(watched *objects.Watched, events *event.Recorder) []func(context.Context) {
		say := alarm.ToEvents(alarm.Config{Local: csitest.Here, Objects: watched, Events: events})
		return []func(context.Context){func(ctx context.Context) {
			for {
				select {
				case <-ctx.Done():
					return
				case changed := <-tell:
					say(changed)
				}
			}
		}}
	})
	defer stop()

	volumeOf := func(id string, damage error) volume.Volume {
		return volume.Volume{Spec: volume.Spec{ID: id}, Damage: damage}
	}
	many := make([]volume.Volume, 5000)
	for i := range many {
		many[i] = volumeOf("pvc-1", nil)
	}
	tell <- []volume.Volume{volumeOf("pvc-1", errLost), volumeOf("inline", nil)}
	tell <- many

	want := []string{
		"Node/a VolumesHealed",
		"Node/a VolumesHealed",
		"PersistentVolumeClaim/data VolumeConditionAbnormal",
	}
	c.Eventually("events", func() bool { return len(said(c)) >= len(want) })
	if got := said(c); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
