package orphan_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/csi/orphan"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// volumes are volumes and snapshots in memory.
type volumes []volume.Volume

func (v volumes) only(snapshots bool) []volume.Volume {
	other := func(one volume.Volume) bool { return one.Snapshot != snapshots }
	return slices.DeleteFunc(slices.Clone(v), other)
}

func (v volumes) List(string, int) []volume.Volume              { return v.only(false) }
func (v volumes) Snapshots(string, string, int) []volume.Volume { return v.only(true) }

// aged is a volume, or a snapshot, that was made so long ago.
func aged(id, name string, age time.Duration, isSnapshot bool) volume.Volume {
	v := volume.Volume{Created: time.Now().Add(-age)}
	v.ID, v.Name, v.Snapshot = id, name, isSnapshot
	return v
}

// said are the messages about volumes without objects.
func said(c *csitest.Cluster) (messages []string) {
	for _, e := range kubetest.All[corev1.Event](c.Server, "events") {
		if e.Reason == "VolumesWithoutObjects" {
			messages = append(messages, e.Message)
		}
	}
	return messages
}

// object is the PersistentVolume of pvc-1.
func object() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "uid-a"},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: csitest.Here.Driver, VolumeHandle: "pvc-1"},
		}},
	}
}

func TestWhatNoObjectStandsForIsSaid(t *testing.T) {
	for name, test := range map[string]struct {
		there volumes
		known bool   // which snapshots have objects
		want  string // in the event; "": there is none
	}{
		"volumes with objects":    {volumes{aged("pvc-1", "pvc-1", time.Hour, false)}, true, ""},
		"a volume without":        {volumes{aged("pvc-2", "pvc-2", time.Hour, false)}, true, "1 volumes"},
		"a young one":             {volumes{aged("pvc-2", "pvc-2", time.Minute, false)}, true, ""},
		"an inline volume":        {volumes{aged("vol-1", "inline/csi-1", time.Hour, false)}, true, ""},
		"a snapshot with":         {volumes{aged("snap-1", "s", time.Hour, true)}, true, ""},
		"a snapshot without":      {volumes{aged("snap-2", "s", time.Hour, true)}, true, "as snap-2:"},
		"snapshots are not known": {volumes{aged("snap-2", "s", time.Hour, true)}, false, ""},
		"a volume and a snapshot": {volumes{
			aged("snap-2", "s", time.Hour, true), aged("pvc-2", "pvc-2", time.Hour, false),
		}, true, "2 volumes"},
	} {
		t.Run(name, func(t *testing.T) {
			c := csitest.NewCluster(t)
			c.Put(object())
			looks := make(chan struct{}, 100)
			stop := c.Run(func(watched *objects.Watched, events *event.Recorder) []func(context.Context) {
				return []func(context.Context){orphan.New(orphan.Config{
					Node:    csitest.Node,
					Volumes: test.there,
					Objects: watched,
					Handles: func() (map[string]bool, bool) {
						looks <- struct{}{}
						return map[string]bool{"snap-1": true}, test.known
					},
					Events: events,
					Log:    c.Log,
					Period: time.Millisecond,
				}).Run}
			})
			defer stop()

			// It is said once, however often it is seen.
			for range 3 {
				<-looks
			}
			if test.want == "" {
				if all := said(c); len(all) > 0 {
					t.Errorf("said %q", all)
				}
				return
			}
			c.Eventually("an event", func() bool { return len(said(c)) > 0 })
			if all := said(c); len(all) != 1 || !strings.Contains(all[0], test.want) {
				t.Errorf("said %q, want once %q", all, test.want)
			}
		})
	}
}
