package provision

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSchedulerLearnsWhatTheNodeHasLeft(t *testing.T) {
	f := newFixture(t)
	f.server.add("nodes/a", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "node-1"}})
	const old = "namespaces/kube-system/csistoragecapacities/old"
	f.server.add(
		old,
		&storagev1.CSIStorageCapacity{
			TypeMeta:   metav1.TypeMeta{Kind: "CSIStorageCapacity", APIVersion: "storage.k8s.io/v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "old", Namespace: "kube-system"},
		},
	)
	defer f.run()()

	var told storagev1.CSIStorageCapacity
	path := capacityPath("fast")
	f.eventually("the capacity of the delayed class", func() bool { return f.server.read(path, &told) })
	xfs := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
	xfs.Name, xfs.Parameters, xfs.TypeMeta = "xfs", map[string]string{
		paramFSType: "xfs",
	}, metav1.TypeMeta{
		Kind:       "StorageClass",
		APIVersion: "storage.k8s.io/v1",
	}

	f.server.add("storageclasses/xfs", xfs)
	var toldXFS storagev1.CSIStorageCapacity
	f.eventually("that of a class with a file system of its own", func() bool {
		return f.server.read(capacityPath("xfs"), &toldXFS)
	})
	if toldXFS.Capacity.Value() != 5<<30 {
		t.Errorf("capacity for xfs %+v", toldXFS)
	}

	if told.StorageClassName != "fast" || told.Capacity.Value() != 10<<30 ||
		told.NodeTopology.MatchLabels[testKey] != "a" ||
		told.OwnerReferences[0].UID != "node-1" {
		t.Errorf("capacity %+v", told)
	}

	f.eventually("that of a class which is no more goes", func() bool { return !f.server.read(old, &told) })
	f.server.remove("storageclasses/fast")
	f.eventually("the class went, its capacity goes", func() bool { return !f.server.read(path, &told) })
}

// The garbage collector takes the objects of a Node that is gone; the Node comes back while the driver runs
// on.
func TestCapacityComesBackAfterItWasTaken(t *testing.T) {
	f := newFixture(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "node-1"}}
	f.server.add("nodes/a", node)
	defer f.run()()

	path := capacityPath("fast")
	var told storagev1.CSIStorageCapacity
	f.eventually("the capacity", func() bool { return f.server.read(path, &told) })
	node.UID = "node-2"
	f.server.add("nodes/a", node)
	f.server.remove(path)
	f.eventually("it is back, of the new Node", func() bool {
		told = storagev1.CSIStorageCapacity{}
		return f.server.read(path, &told) && told.OwnerReferences[0].UID == "node-2"
	})

	f.server.change(path, document{"capacity": "1"})
	f.eventually(
		"it is right again",
		func() bool { return f.server.read(path, &told) && told.Capacity.Value() == 10<<30 },
	)
}

func TestCapacityGoesWithTheCSIDriver(t *testing.T) {
	f := newFixture(t)
	f.server.add("nodes/a", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "node-1"}})
	defer f.run()()
	path := capacityPath("fast")
	var told storagev1.CSIStorageCapacity
	f.eventually("the capacity", func() bool { return f.server.read(path, &told) })
	f.server.remove("csidrivers/" + testDriver)
	f.eventually("it is gone", func() bool { return !f.server.read(path, &told) })
}

func TestNodeTellsOfTroubleWithItsVolumes(t *testing.T) {
	f := newFixture(t)
	p, err := New(
		Config{
			Driver:      testDriver,
			TopologyKey: testKey,
			Node:        "a",
			Dir:         f.dir,
			Client:      f.client,
			CSI:         f.disk,
			Log:         slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	p.Trouble("btrfs", errors.New("read-only"))
	f.eventually("the event", func() bool {
		return slices.ContainsFunc(f.server.events(), func(e corev1.Event) bool {
			return e.InvolvedObject.Kind == "Node" && e.InvolvedObject.UID == "a" &&
				e.Type == corev1.EventTypeWarning
		})
	})

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// capacityPath is where the capacity of a class on node a is.
func capacityPath(class string) string {
	p := &Provisioner{cfg: Config{Node: "a"}}
	return "namespaces/kube-system/csistoragecapacities/" + p.capacityName(class)
}

func TestCapacityOfABusyDiskIsNotToldWithoutAReason(t *testing.T) {
	f := newFixture(t)
	f.disk.busy = true
	f.server.add("nodes/a", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "node-1"}})
	defer f.run()()

	var told storagev1.CSIStorageCapacity
	f.eventually("the capacity", func() bool { return f.server.read(capacityPath("fast"), &told) })
	looks := func() int64 {
		f.disk.mu.Lock()
		defer f.disk.mu.Unlock()

		return f.disk.looks
	}

	before := looks()

	// nothing is to happen in this time
	<-time.After(6 * capacityPause)
	if after := looks(); after > before+1 {
		t.Errorf("%d looks without a reason", after-before)
	}
}
