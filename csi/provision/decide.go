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

	"github.com/trivet-node/trivet/csi/objects"
)

// Annotations of claims that schedulers, controllers and provisioners agree upon.
const (
	annSelectedNode    = "volume.kubernetes.io/selected-node"
	annProvisioner     = "volume.kubernetes.io/storage-provisioner"
	annBetaProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	annBetaClass       = "volume.beta.kubernetes.io/storage-class"
)

// action is what to do about a claim.
type action string

const (
	ignore     action = "ignore"      // not ours, not yet or not any more
	create     action = "create"      // make its volume here
	selectHere action = "select here" // take it for this node by writing selected-node, if there is room
	bringHere  action = "bring here"  // take it from the selected node, if its content is here
	wait       action = "wait"        // another node has the first turn; look again after a while
	reschedule action = "reschedule"  // leave it to the scheduler again, if its selected node does not exist
	refuse     action = "refuse"      // it can never be served as it is
)

// facts are all that the decision about a claim rests on.
type facts struct {
	local objects.Local
	claim *corev1.PersistentVolumeClaim // nil: gone
	class *storagev1.StorageClass       // nil: there is none of that name
	nodes []string                      // all nodes that run the driver
	now   time.Time

	// attributes are those of the claim's VolumeAttributesClass, read when its volume is made.
	attributes map[string]string

	// secret is what the class names for staging the volume, resolved when that is made; nil: nothing.
	secret *corev1.SecretReference

	// full is until when this node, which had no room for the claim, does not take it.
	full time.Time
}

type decision struct {
	action action
	after  time.Duration // for wait
	reason string
}

// turn is how long each node has the first right to an Immediate claim before the next one may take it, too.
const turn = 2 * time.Second

// decide says what the provisioner of one node does about a claim. It is pure: the same facts give the same
// decision.
func decide(f facts) decision {
	c := f.claim
	switch {
	case c == nil:
		return decision{action: ignore, reason: "claim is gone"}
	case c.Spec.VolumeName != "":
		return decision{action: ignore, reason: "claim has a volume"}
	case c.DeletionTimestamp != nil:
		return decision{action: ignore, reason: "claim is being deleted"}
	case className(c) == "" || f.class == nil || f.class.Provisioner != f.local.Driver:
		return decision{action: ignore, reason: "class is not ours"}
	case sourceKindOf(c) == sourceOther:
		return decision{action: ignore, reason: "a populator fills the volume"}
	case namesOther(c, f.local.Driver):
		return decision{action: ignore, reason: "claim is for another provisioner"}
	}

	switch selected := c.Annotations[annSelectedNode]; selected {
	case "":
		return decideUnselected(f)
	case f.local.Node:
		if reason := unservable(c); reason != "" {
			return decision{action: refuse, reason: reason}
		}

		return decision{action: create}

	default:
		// One node looks whether the selected one exists, not all.
		if !slices.Contains(f.nodes, selected) && f.first() {
			return decision{action: reschedule, reason: "node " + selected + " does not run the driver"}
		}

		if sourceKindOf(c) != noSource && unservable(c) == "" && f.local.Allows(f.class) {
			return decision{action: bringHere}
		}

		return decision{action: ignore, reason: "claim is for node " + selected}
	}
}

// decideUnselected is decide for a claim without a node. All nodes see it: one of them says what is wrong
// with it, and one takes it.
func decideUnselected(f facts) decision {
	c := f.claim
	if objects.Waits(f.class) {
		return decision{action: ignore, reason: "claim waits for its first consumer"}
	}

	if reason := unservable(c); reason != "" {
		if f.first() {
			return decision{action: refuse, reason: reason}
		}

		return decision{action: ignore, reason: reason}
	}

	if !f.local.Allows(f.class) {
		return decision{action: ignore, reason: "class does not allow this node"}
	}

	// Two writers at once: one of them would fail.
	if c.Annotations[annProvisioner] == "" && c.Annotations[annBetaProvisioner] == "" {
		return decision{action: ignore, reason: "the controller-manager is about to write to the claim"}
	}
	if after := f.full.Sub(f.now); after > 0 {
		return decision{action: wait, after: after, reason: "there was no room a moment ago"}
	}

	mine := c.CreationTimestamp.Add(time.Duration(rank(c, f.local.Node, f.nodes)) * turn)
	if after := mine.Sub(f.now); after > 0 {
		return decision{action: wait, after: after, reason: "another node has the first turn"}
	}

	return decision{action: selectHere}
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

// unservable returns why there can be no volume for a claim on any node; "" if there can.
func unservable(c *corev1.PersistentVolumeClaim) string {
	switch {
	case c.Spec.Selector != nil:
		return "a claim with a selector cannot be provisioned"
	case sourceRef(c) != nil && sourceRef(c).Namespace != nil && *sourceRef(c).Namespace != c.Namespace:
		return fmt.Sprintf("data source %s %s is in another namespace", sourceRef(c).Kind, sourceRef(c).Name)
	}

	for _, mode := range c.Spec.AccessModes {
		if mode == corev1.ReadWriteMany {
			return fmt.Sprintf("access mode %s: a volume is on one node; pods there can share it with"+
				" ReadWriteOnce", mode)
		}
		if !writes(mode) && isBlock(c) {
			return fmt.Sprintf("access mode %s: a raw block volume does not keep pods from writing; give it"+
				" a file system, or ReadWriteOnce alone", mode)
		}
	}

	modes := c.Spec.AccessModes
	if len(modes) > 0 && !slices.ContainsFunc(modes, writes) && sourceKindOf(c) == noSource {
		return fmt.Sprintf("access mode %s: a volume that begins empty and that nobody writes; give it a"+
			" dataSource or ReadWriteOnce", corev1.ReadOnlyMany)
	}

	return ""
}

// first reports whether this node is the one that speaks for all about a claim.
func (f facts) first() bool { return rank(f.claim, f.local.Node, f.nodes) == 0 }

// rank is a node's place in the order in which nodes may take a claim (rendezvous hashing): all nodes compute
// the same order without talking to each other, each claim has another first node, and a node that comes or
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
