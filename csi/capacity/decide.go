package capacity

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/trivet-node/trivet/csi/objects"
)

// namespace is where the objects of all drivers are.
const namespace = "kube-system"

// nameOf is the name of the object of a class on a node.
func nameOf(node, class string) string {
	return fmt.Sprintf("trivet-%x", sha256.Sum256([]byte(node+"/"+class)))[:39]
}

// isWanted reports whether the cluster wants to know capacities: not after the CSIDriver was deleted.
func isWanted(driver *storagev1.CSIDriver) bool {
	return driver != nil && driver.Spec.StorageCapacity != nil && *driver.Spec.StorageCapacity
}

// isPublished reports whether the capacity for a class matters: its volumes are made where the scheduler
// says, and that may be here.
func isPublished(local objects.Local, class *storagev1.StorageClass) bool {
	return class.Provisioner == local.Driver && objects.Waits(class) && local.Allows(class)
}

// difference says what has to be written so that the objects say what is wanted: bytes (as text) by class.
// have are all objects of the node.
func difference(
	local objects.Local,
	wanted map[string]string,
	have []*storagev1.CSIStorageCapacity,
) (apply, remove []string) {
	// By name of the object.
	right := map[string]bool{}
	for class := range wanted {
		right[nameOf(local.Node, class)] = false
	}

	for _, object := range have {
		if object.Namespace != namespace {
			continue
		}

		if _, known := right[object.Name]; !known {
			remove = append(remove, object.Name)
			continue
		}

		right[object.Name] = says(local, object, wanted[object.StorageClassName])
	}

	for class := range wanted {
		if !right[nameOf(local.Node, class)] {
			apply = append(apply, class)
		}
	}

	return apply, remove
}

// says reports whether an object is as it is written for its class with those bytes.
func says(local objects.Local, object *storagev1.CSIStorageCapacity, bytes string) bool {
	return object.Name == nameOf(local.Node, object.StorageClassName) &&
		object.Capacity != nil && object.Capacity.String() == bytes &&
		object.MaximumVolumeSize != nil && object.MaximumVolumeSize.String() == bytes &&
		object.NodeTopology != nil && object.NodeTopology.MatchLabels[local.TopologyKey] == local.Node
}

// objectOf is the object for a class as JSON, owned by the Node, so that it goes with that.
func objectOf(local objects.Local, class, bytes, nodeUID string) ([]byte, error) {
	here := map[string]string{local.TopologyKey: local.Node}
	owner := map[string]string{
		"apiVersion": "v1",
		"kind":       "Node",
		"name":       local.Node,
		"uid":        nodeUID,
	}

	return json.Marshal(map[string]any{
		"apiVersion": "storage.k8s.io/v1",
		"kind":       "CSIStorageCapacity",
		"metadata": map[string]any{
			"name":            nameOf(local.Node, class),
			"namespace":       namespace,
			"labels":          here,
			"ownerReferences": []any{owner},
		},
		"nodeTopology":      map[string]any{"matchLabels": here},
		"storageClassName":  class,
		"capacity":          bytes,
		"maximumVolumeSize": bytes,
	})
}
