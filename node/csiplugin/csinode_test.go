package csiplugin

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/kube/storage"
)

// startCSINodes returns the publisher of the node n, whose API server has the Node and no CSINode.
func startCSINodes(t *testing.T) (*CSINodes, *kubetest.Server) {
	t.Helper()
	server := kubetest.Start(t)
	server.Put(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	client := server.Client()
	return &CSINodes{
		CSINodes: storage.CSINodes(client),
		Nodes:    kube.Nodes(client),
		Node:     "n",
	}, server
}

// zoned is a driver whose volumes are in a zone.
func zoned(name, nodeID string) Info {
	return Info{
		Name:       name,
		NodeID:     nodeID,
		MaxVolumes: 8,
		Topology:   map[string]string{"zone": "a"},
	}
}

func drivers(t *testing.T, server *kubetest.Server) []storagev1.CSINodeDriver {
	t.Helper()
	object := kubetest.Get[storagev1.CSINode](server, "csinodes", "", "n")
	if object == nil {
		t.Fatal("there is no CSINode")
	}
	return object.Spec.Drivers
}

func TestADriverIsEnteredIntoCSINodeAndNode(t *testing.T) {
	n, server := startCSINodes(t)
	if err := n.Add(t.Context(), zoned("d", "id-1")); err != nil {
		t.Fatal(err)
	}

	want := []storagev1.CSINodeDriver{{
		Name:         "d",
		NodeID:       "id-1",
		TopologyKeys: []string{"zone"},
		Allocatable:  &storagev1.VolumeNodeResources{Count: new(int32(8))},
	}}
	if diff := cmp.Diff(want, drivers(t, server)); diff != "" {
		t.Error(diff)
	}

	node := kubetest.Get[v1.Node](server, "nodes", "", "n")
	if node.Labels["zone"] != "a" || node.Annotations[nodeIDs] != `{"d":"id-1"}` {
		t.Errorf("node has labels %v and annotations %v", node.Labels, node.Annotations)
	}
}

func TestADriverThatIsEnteredAlreadyIsNotWritten(t *testing.T) {
	n, server := startCSINodes(t)
	for range 2 {
		if err := n.Add(t.Context(), zoned("d", "id-1")); err != nil {
			t.Fatal(err)
		}
	}

	for _, call := range server.Calls() {
		if strings.HasPrefix(call, "update") {
			t.Errorf("call %q", call)
		}
	}
}

func TestADriverThatHasChangedIsReplaced(t *testing.T) {
	n, server := startCSINodes(t)
	err := errors.Join(
		n.Add(t.Context(), zoned("d", "id-1")),
		n.Add(t.Context(), zoned("e", "id-2")),
		n.Add(t.Context(), zoned("d", "id-3")),
	)
	if err != nil {
		t.Fatal(err)
	}

	ids := map[string]string{}
	for _, d := range drivers(t, server) {
		ids[d.Name] = d.NodeID
	}
	if diff := cmp.Diff(map[string]string{"d": "id-3", "e": "id-2"}, ids); diff != "" {
		t.Error(diff)
	}
}

func TestADriverThatIsGoneIsTakenOut(t *testing.T) {
	n, server := startCSINodes(t)
	err := errors.Join(
		n.Add(t.Context(), zoned("d", "id-1")),
		n.Remove(t.Context(), "d"),
		n.Remove(t.Context(), "never-there"),
	)
	if left := drivers(t, server); err != nil || len(left) > 0 {
		t.Errorf("left %v, error %v", left, err)
	}
}

func TestAnotherZoneThanTheNodesIsAnError(t *testing.T) {
	n, server := startCSINodes(t)
	server.Put(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{"zone": "b"}}})
	err := n.Add(t.Context(), zoned("d", "id-1"))
	if err == nil || !strings.Contains(err.Error(), "detected topology value collision") {
		t.Errorf("error %v", err)
	}
}

func TestChangesAreRepeatedAfterConflictsButNotForever(t *testing.T) {
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "csinodes"}, "n", errors.New("changed"))
	n, server := startCSINodes(t)
	if err := n.Add(t.Context(), zoned("d", "id-1")); err != nil {
		t.Fatal(err)
	}

	server.FailOn("update csinodes", conflicts-1, conflict)
	if err := n.Remove(t.Context(), "d"); err != nil {
		t.Errorf("after some conflicts: %v", err)
	}

	server.FailOn("update csinodes", -1, conflict)
	if err := n.Add(t.Context(), zoned("d", "id-1")); !apierrors.IsConflict(err) {
		t.Errorf("error %v, want the conflict", err)
	}
}

// Somebody makes the object between the read and the creation, every time.
func TestACSINodeThatCannotBeMadeIsAnError(t *testing.T) {
	exists := apierrors.NewAlreadyExists(schema.GroupResource{Resource: "csinodes"}, "n")
	n, server := startCSINodes(t)
	server.FailOn("create csinodes", -1, exists)
	if err := n.Add(t.Context(), zoned("d", "id-1")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("error %v, want that it exists", err)
	}
}

func TestInitMakesACSINodeWithoutDrivers(t *testing.T) {
	n, server := startCSINodes(t)
	err := errors.Join(n.Init(t.Context()), n.Init(t.Context()))
	if all := drivers(t, server); err != nil || len(all) > 0 {
		t.Errorf("drivers %v, error %v", all, err)
	}

	owner := kubetest.Get[storagev1.CSINode](server, "csinodes", "", "n").OwnerReferences
	if len(owner) != 1 || owner[0].Kind != "Node" || owner[0].Name != "n" {
		t.Errorf("owners %v", owner)
	}
}
