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

// CSINodes keeps the node's CSINode object and the topology labels and the node ID annotation of its Node. It
// is the Publisher of a real cluster.
type CSINodes struct {
	CSINodes kube.Objects[storagev1.CSINode]
	Nodes    kube.Objects[v1.Node]
	Node     string

	mu sync.Mutex // one change at a time: they are read, changed and written back
}

// nodeIDs is the annotation that attachers of old read; kubelet keeps it.
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
		i := slices.IndexFunc(
			c.Spec.Drivers,
			func(x storagev1.CSINodeDriver) bool { return x.Name == d.Name },
		)
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
		c.Spec.Drivers = slices.DeleteFunc(
			c.Spec.Drivers,
			func(x storagev1.CSINodeDriver) bool { return x.Name == name },
		)
		return len(c.Spec.Drivers) != before
	})
}

func same(a, b storagev1.CSINodeDriver) bool {
	limit := func(d storagev1.CSINodeDriver) int32 {
		if d.Allocatable == nil || d.Allocatable.Count == nil {
			return 0
		}
		return *d.Allocatable.Count
	}
	return a.NodeID == b.NodeID && slices.Equal(a.TopologyKeys, b.TopologyKeys) && limit(a) == limit(b)
}

// change makes the object if need be and applies edit to it, again after a conflict.
func (n *CSINodes) change(ctx context.Context, edit func(*storagev1.CSINode) bool) error {
	var last error
	for range 5 {
		obj, err := n.CSINodes.Get(ctx, "", n.Node)
		if apierrors.IsNotFound(err) {
			if err := n.create(ctx, edit); !apierrors.IsAlreadyExists(err) {
				return err
			}

			continue
		}

		if err != nil {
			return fmt.Errorf("read CSINode %s: %w", n.Node, err)
		}
		if !edit(obj) {
			return nil
		}

		_, last = n.CSINodes.Update(ctx, obj)
		if !apierrors.IsConflict(last) {
			break
		}
	}

	if last != nil {
		return fmt.Errorf("update CSINode %s: %w", n.Node, last)
	}

	return nil
}

func (n *CSINodes) create(ctx context.Context, edit func(*storagev1.CSINode) bool) error {
	node, err := n.Nodes.Get(ctx, "", n.Node)
	if err != nil {
		return fmt.Errorf("read node %s: %w", n.Node, err)
	}

	obj := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: n.Node, OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "Node", Name: n.Node, UID: node.UID}}}}
	obj.Spec.Drivers = []storagev1.CSINodeDriver{}
	edit(obj)
	_, err = n.CSINodes.Create(ctx, obj)
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create CSINode %s: %w", n.Node, err)
	}

	return err
}

// Init makes the CSINode object without drivers if there is none, as kubelet does, and tries until it can:
// the Node may not be registered yet. It returns nil when done or when ctx ends.
func (n *CSINodes) Init(ctx context.Context) error {
	pauses := retry.Backoff{First: 200 * time.Millisecond, Max: 30 * time.Second}
	_ = retry.Until(ctx, pauses, func(ctx context.Context) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		err := n.change(ctx, func(*storagev1.CSINode) bool { return false })
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	return nil
}

// labelNode writes the driver's topology as labels of the Node, and its node ID as annotation, in one patch;
// none if they are there.
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
