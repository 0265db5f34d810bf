package provision

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// Annotations of claims and volumes that schedulers, controllers and provisioners agree upon.
const (
	annSelectedNode    = "volume.kubernetes.io/selected-node"
	annProvisioner     = "volume.kubernetes.io/storage-provisioner"
	annBetaProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	annBetaClass       = "volume.beta.kubernetes.io/storage-class"
	annProvisionedBy   = "pv.kubernetes.io/provisioned-by"

	// finalizer keeps a volume object until its content is deleted. The name is external-provisioner's, so
	// that either can take over.
	finalizer = "external-provisioner.volume.kubernetes.io/finalizer"
)

// action is what to do about a claim.
type action string

const (
	ignore action = "ignore" // not ours, not yet or not any more
	create action = "create" // make its volume here
	take   action = "take"   // claim it for this node by writing selected-node, if there is room
	wait   action = "wait"   // another node has the first turn; look again after a while
	// give it back to the scheduler, if the node that was selected does not exist any more
	free   action = "free"
	refuse action = "refuse" // it can never be served as it is
	bound  action = "bound"  // it has a volume, which may have to grow
)

// facts are all that the decision about a claim rests on.
type facts struct {
	driver, topologyKey, node string
	claim                     *corev1.PersistentVolumeClaim // nil: gone
	class                     *storagev1.StorageClass       // nil: there is none of that name
	nodes                     []string                      // all nodes that run the driver
	now                       time.Time
	// until then this node, which had no room for the claim, does not take it
	full time.Time
}

type decision struct {
	action action
	after  time.Duration // for wait
	reason string
}

// turn is how long each node has the first right to an Immediate claim before the next one may take it, too.
const turn = 2 * time.Second

// decide tells what the provisioner of one node does about a claim. It is pure: the same facts give the same
// decision.
func decide(f facts) decision {
	c := f.claim
	switch {
	case c == nil:
		return decision{action: ignore, reason: "claim is gone"}
	case c.Spec.VolumeName != "":
		return decision{action: bound, reason: "claim has a volume"}
	case c.DeletionTimestamp != nil:
		return decision{action: ignore, reason: "claim is being deleted"}
	case className(c) == "" || f.class == nil || f.class.Provisioner != f.driver:
		return decision{action: ignore, reason: "class is not ours"}
	case namesOther(c, f.driver):
		return decision{action: ignore, reason: "claim is for another provisioner"}
	}

	selected := c.Annotations[annSelectedNode]
	if selected != "" && selected != f.node && !slices.Contains(f.nodes, selected) &&
		rank(c, f.node, f.nodes) == 0 {
		// one node looks whether it is gone, not all
		return decision{action: free, reason: "node " + selected + " does not run the driver"}
	}

	if selected != "" && selected != f.node {
		return decision{action: ignore, reason: "claim is for node " + selected}
	}
	if selected == "" && delayed(f.class) {
		return decision{action: ignore, reason: "claim waits for its first consumer"}
	}

	if reason := unservable(c); reason != "" {
		// one node says it, not all
		if selected == f.node || rank(c, f.node, f.nodes) == 0 {
			return decision{action: refuse, reason: reason}
		}

		return decision{action: ignore, reason: reason}
	}

	if selected == f.node {
		return decision{action: create}
	}
	if !allows(f.class, f.topologyKey, f.node) {
		return decision{action: ignore, reason: "class does not allow this node"}
	}

	if c.Annotations[annProvisioner] == "" && c.Annotations[annBetaProvisioner] == "" {
		// two writers at once: one of them fails
		return decision{action: ignore, reason: "the controller-manager is about to write to the claim"}
	}

	if after := f.full.Sub(f.now); after > 0 {
		return decision{action: wait, after: after, reason: "there was no room a moment ago"}
	}

	mine := c.CreationTimestamp.Add(time.Duration(rank(c, f.node, f.nodes)) * turn)
	if after := mine.Sub(f.now); after > 0 {
		return decision{action: wait, after: after, reason: "another node has the first turn"}
	}

	return decision{action: take}
}

func className(c *corev1.PersistentVolumeClaim) string {
	if name, ok := c.Annotations[annBetaClass]; ok {
		return name
	}
	if c.Spec.StorageClassName == nil {
		return ""
	}
	return *c.Spec.StorageClassName
}

// namesOther reports whether the controller-manager handed the claim to another provisioner. That it named
// none yet is no reason not to make the volume: class and node are known.
func namesOther(c *corev1.PersistentVolumeClaim, driver string) bool {
	named := cmp.Or(c.Annotations[annProvisioner], c.Annotations[annBetaProvisioner], driver)
	return named != driver
}

func delayed(class *storagev1.StorageClass) bool {
	return class.VolumeBindingMode != nil &&
		*class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

func unservable(c *corev1.PersistentVolumeClaim) string {
	switch {
	case c.Spec.Selector != nil:
		return "a claim with a selector cannot be provisioned"
	case c.Spec.VolumeAttributesClassName != nil && *c.Spec.VolumeAttributesClassName != "":
		return fmt.Sprintf("volume attributes class %s: the driver has no attributes",
			*c.Spec.VolumeAttributesClassName)
	case c.Spec.DataSourceRef != nil:
		return fmt.Sprintf("data source %s %s: snapshots and clones are not served",
			c.Spec.DataSourceRef.Kind, c.Spec.DataSourceRef.Name)
	case c.Spec.DataSource != nil:
		return fmt.Sprintf("data source %s %s: snapshots and clones are not served",
			c.Spec.DataSource.Kind, c.Spec.DataSource.Name)
	}

	for _, mode := range c.Spec.AccessModes {
		if mode == corev1.ReadWriteMany || mode == corev1.ReadOnlyMany {
			return fmt.Sprintf("access mode %s: a volume is on one node; pods there can share it with "+
				"ReadWriteOnce", mode)
		}
	}

	return ""
}

// allows reports whether the class's allowedTopologies, if it has any, include the node. Terms about other
// keys are the scheduler's matter.
func allows(class *storagev1.StorageClass, key, node string) bool {
	if len(class.AllowedTopologies) == 0 {
		return true
	}
	return slices.ContainsFunc(class.AllowedTopologies, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			return e.Key == key && !slices.Contains(e.Values, node)
		})
	})
}

// rank is a node's place in the order in which nodes may take a claim (rendezvous hashing): all nodes compute
// the same order without a word between them, each claim has another first node, and a node that comes or
// goes moves only the claims that concern it.
func rank(c *corev1.PersistentVolumeClaim, node string, nodes []string) int {
	weight := func(n string) uint64 {
		sum := sha256.Sum256([]byte(string(c.UID) + "/" + n))
		return binary.BigEndian.Uint64(sum[:])
	}
	own, place := weight(node), 0
	for _, n := range nodes {
		if n != node && weight(n) > own {
			place++
		}
	}
	return place
}
