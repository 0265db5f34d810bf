package csiplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// CSINodes keeps the node's CSINode object, and the topology labels and the node ID annotation of its Node.
// It is the Publisher of a real cluster.
type CSINodes struct {
	CSINodes kube.Objects[storagev1.CSINode]
	Nodes    kube.Objects[v1.Node]

	// Node is the name of both objects.
	Node string

	// mu orders the changes: objects are read, changed and written back.
	mu sync.Mutex
}

// nodeIDs is the annotation that early attachers read. kubelet keeps it.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// Add enters the driver.
func (n *CSINodes) Add(ctx context.Context, d Info) error {
	n.mu.Lock()
	defer n.mu.Unlock()

	if err := n.labelNode(ctx, d); err != nil {
		return err
	}

	keys := slices.Sorted(maps.Keys(d.Topology))
	entry := storagev1.CSINodeDriver{Name: d.Name, NodeID: d.NodeID, TopologyKeys: keys}
	if d.MaxVolumes > 0 {
		entry.Allocatable = &storagev1.VolumeNodeResources{Count: new(int32(min(d.MaxVolumes, 1<<31-1)))}
	}

	return n.change(ctx, func(c *storagev1.CSINode) bool {
		i := slices.IndexFunc(c.Spec.Drivers, named(d.Name))
		if i < 0 {
			c.Spec.Drivers = append(c.Spec.Drivers, entry)
			return true
		}

		if same(c.Spec.Drivers[i], entry) {
			return false
		}

		// The API takes a changed entry only as a removal and an addition.
		c.Spec.Drivers = append(slices.Delete(c.Spec.Drivers, i, i+1), entry)
		return true
	})
}

// Remove takes the driver out.
func (n *CSINodes) Remove(ctx context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()

	return n.change(ctx, func(c *storagev1.CSINode) bool {
		before := len(c.Spec.Drivers)
		c.Spec.Drivers = slices.DeleteFunc(c.Spec.Drivers, named(name))
		return len(c.Spec.Drivers) != before
	})
}

// named finds the entry of a driver.
func named(driver string) func(storagev1.CSINodeDriver) bool {
	return func(d storagev1.CSINodeDriver) bool { return d.Name == driver }
}

// same reports whether two entries of a driver say the same.
func same(a, b storagev1.CSINodeDriver) bool {
	limit := func(d storagev1.CSINodeDriver) int32 {
		if d.Allocatable == nil || d.Allocatable.Count == nil {
			return 0
		}
		return *d.Allocatable.Count
	}

	return a.NodeID == b.NodeID && slices.Equal(a.TopologyKeys, b.TopologyKeys) && limit(a) == limit(b)
}

// conflicts is how often a change is repeated because somebody else has changed the object meanwhile.
const conflicts = 5

// change applies edit to the object, which is made if it does not exist. edit reports whether it has changed
// anything; it is called once for each version of the object.
func (n *CSINodes) change(ctx context.Context, edit func(*storagev1.CSINode) bool) error {
	var err error
	for range conflicts {
		err = n.changeOnce(ctx, edit)
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			break
		}
	}
	return err
}

func (n *CSINodes) changeOnce(ctx context.Context, edit func(*storagev1.CSINode) bool) error {
	obj, err := n.CSINodes.Get(ctx, "", n.Node)
	if apierrors.IsNotFound(err) {
		return n.create(ctx, edit)
	}
	if err != nil {
		return fmt.Errorf("read CSINode %s: %w", n.Node, err)
	}

	if !edit(obj) {
		return nil
	}
	if _, err := n.CSINodes.Update(ctx, obj); err != nil {
		return fmt.Errorf("update CSINode %s: %w", n.Node, err)
	}

	return nil
}

// create makes the object. The Node owns it, so that it goes with the Node.
func (n *CSINodes) create(ctx context.Context, edit func(*storagev1.CSINode) bool) error {
	node, err := n.Nodes.Get(ctx, "", n.Node)
	if err != nil {
		return fmt.Errorf("read node %s: %w", n.Node, err)
	}

	owner := metav1.OwnerReference{
		APIVersion: "v1",
		Kind:       "Node",
		Name:       n.Node,
		UID:        node.UID,
	}

	obj := &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: n.Node, OwnerReferences: []metav1.OwnerReference{owner}},
		Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{}},
	}

	edit(obj)

	if _, err := n.CSINodes.Create(ctx, obj); err != nil {
		return fmt.Errorf("create CSINode %s: %w", n.Node, err)
	}

	return nil
}

// Init makes the CSINode object without drivers if there is none, as kubelet does. It repeats that until it
// succeeds or ctx ends, because the Node may not be registered yet; its result is always nil.
func (n *CSINodes) Init(ctx context.Context) error {
	pauses := retry.Backoff{First: 200 * time.Millisecond, Max: 30 * time.Second}
	_ = retry.Until(ctx, pauses, func(ctx context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.change(ctx, func(*storagev1.CSINode) bool { return false })
	})
	return nil
}

// labelNode writes the driver's topology as labels of the Node, and its node ID as annotation, in one patch.
// It sends none if they are there.
func (n *CSINodes) labelNode(ctx context.Context, d Info) error {
	node, err := n.Nodes.Get(ctx, "", n.Node)
	if err != nil {
		return fmt.Errorf("read node %s: %w", n.Node, err)
	}

	labels := map[string]string{}
	for k, v := range d.Topology {
		have, ok := node.Labels[k]
		if ok && have != v {
			return fmt.Errorf("label %s of node %s is %q, CSI driver %s says %q: detected topology value "+
				"collision", k, n.Node, have, d.Name, v)
		}

		if !ok {
			labels[k] = v
		}
	}

	ids := map[string]string{}
	if text := node.Annotations[nodeIDs]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			ids = map[string]string{}
		}
	}

	if len(labels) == 0 && ids[d.Name] == d.NodeID {
		return nil
	}

	ids[d.Name] = d.NodeID
	text, err := json.Marshal(ids)
	if err != nil {
		return errors.New("node ID " + strconv.Quote(d.NodeID) + " cannot be written")
	}

	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"labels": labels, "annotations": map[string]string{nodeIDs: string(text)}},
	})
	if err != nil {
		return err
	}

	_, err = n.Nodes.Patch(ctx, "", n.Node, types.StrategicMergePatchType, patch)
	if err != nil {
		return fmt.Errorf("label node %s for CSI driver %s: %w", n.Node, d.Name, err)
	}

	return nil
}
