package provision

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/event"
)

// released is a PersistentVolume whose content is to be deleted.
func released() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        csitest.Volume,
			Annotations: map[string]string{objects.ProvisionedBy: csitest.Here.Driver},
			Finalizers:  []string{objects.Finalizer},
		},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			NodeAffinity:                  csitest.Here.Affinity(),
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{
					Driver:       csitest.Here.Driver,
					VolumeHandle: csitest.Volume,
				},
			},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
	}
}

func TestDispose(t *testing.T) {
	retained := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	bound := func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound }
	available := func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeAvailable }
	deleted := func(v *corev1.PersistentVolume) { v.DeletionTimestamp = &metav1.Time{Time: csitest.Born} }
	bare := func(v *corev1.PersistentVolume) { v.Finalizers = nil }
	type changes = []func(*corev1.PersistentVolume)
	for _, c := range []struct {
		name    string
		changes changes
		want    disposal
	}{
		{"released", nil, destroy},
		{"bound", changes{bound}, keep},
		{"bound and being deleted", changes{bound, deleted}, keep},
		{"bound, without finalizer", changes{bound, bare}, protect},
		{"without finalizer and being deleted", changes{bare, deleted}, keep},
		{"never bound", changes{available}, keep},
		{"never bound and being deleted", changes{available, deleted}, destroy},
		{"retained", changes{retained}, keep},
		{"retained, bound by an earlier version", changes{retained, bound, bare}, protect},
		{"retained and being deleted", changes{retained, deleted}, release},
		{"retained, bound and being deleted", changes{retained, bound, deleted}, keep},
		{"on another node", changes{func(v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] = "b"
		}}, keep},
		{"anywhere", changes{func(v *corev1.PersistentVolume) { v.Spec.NodeAffinity = nil }}, keep},
		{"made by hand", changes{func(v *corev1.PersistentVolume) { v.Annotations = nil }}, keep},
		{
			"of another driver",
			changes{func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "other" }},
			keep,
		},
		{"no CSI", changes{func(v *corev1.PersistentVolume) { v.Spec.CSI = nil }}, keep},
	} {
		t.Run(c.name, func(t *testing.T) {
			pv := released()
			for _, change := range c.changes {
				change(pv)
			}

			if got := dispose(csitest.Here, pv); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// The class retains, somebody changes the policy, and deletes the object before the claim.
func TestContentIsDeletedThoughTheObjectWasDeletedFirst(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.ChangeClass(csitest.Waiting, document{"reclaimPolicy": "Retain"})
	defer c.run()()

	c.Bind()

	// As earlier versions.
	c.ChangeVolume(csitest.Volume, document{"metadata": document{"finalizers": nil}})
	c.Eventually("the finalizer", func() bool { return hasFinalizer(c.VolumeNamed(csitest.Volume)) })

	c.ChangeVolume(csitest.Volume, document{"spec": document{"persistentVolumeReclaimPolicy": "Delete"}})
	c.Remove("persistentvolumes", "", csitest.Volume)
	if !c.isCreated() || c.volumes() != 1 {
		t.Fatal("the object or its content was deleted before the claim")
	}

	c.Remove("persistentvolumeclaims", csitest.Namespace, csitest.Claim)
	c.ChangeVolume(csitest.Volume, document{"status": document{"phase": "Released"}})
	c.Eventually("content and object are gone", func() bool { return !c.isCreated() && c.volumes() == 0 })
}

func TestRetainedContentOutlivesItsObject(t *testing.T) {
	c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
	c.ChangeClass(csitest.Waiting, document{"reclaimPolicy": "Retain"})
	defer c.run()()
	c.Bind()
	c.ChangeVolume(csitest.Volume, document{"status": document{"phase": "Released"}})
	c.Remove("persistentvolumes", "", csitest.Volume)
	c.Eventually("the object is gone", func() bool { return !c.isCreated() })
	if c.volumes() != 1 {
		t.Error("the content was deleted")
	}
}

// Somebody who may write PersistentVolumes makes one with the handle of another one's volume, and deletes it.
func TestVolumeIsKeptForAnotherObjectThatHasIt(t *testing.T) {
	for name, otherNode := range map[string]bool{
		"on this node":               false,
		"said to be on another node": true,
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, waiting(csitest.Waiting, csitest.Node))
			defer c.run()()

			c.Bind()
			if otherNode {
				c.ChangeVolume(csitest.Volume, document{"spec": document{"nodeAffinity": nil}})
			}

			rogue := released()
			rogue.Name, rogue.UID = "rogue", "uid-rogue"
			c.Put(rogue)
			c.Eventually("the event", func() bool { return c.HasEvent("VolumeFailedDelete") })

			c.Remove("persistentvolumes", "", "rogue")
			c.Eventually("the rogue is gone", func() bool { return c.VolumeNamed("rogue") == nil })
			if c.volumes() != 1 {
				t.Error("somebody else's volume is deleted")
			}
		})
	}
}

// What the watch knows may be old. Deleting content cannot be undone, so that the server is asked.
func TestContentIsNotDeletedByWhatTheCacheSays(t *testing.T) {
	c := newCluster(t)
	stored := released()
	stored.UID = "uid-pv"
	stored.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	c.Put(stored)
	watched := objects.New(c.Client, csitest.Here)
	p, err := New(c.config(watched, event.New(kube.Events(c.Client), event.Config{Log: c.Log})))
	if err != nil {
		t.Fatal(err)
	}

	stale := released()
	stale.UID = "uid-pv"
	if err := p.destroy(t.Context(), stale); err != nil {
		t.Fatal(err)
	}
	if c.CSI.Calls("DeleteVolume") != 0 || !c.isCreated() {
		t.Error("a volume that is retained meanwhile was deleted")
	}
}
