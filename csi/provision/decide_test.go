package provision

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/csitest"
	"github.com/trivet-node/trivet/csi/objects"
)

func changed(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := csitest.NewClaim("1Gi", "fast")
	if change != nil {
		change(c)
	}
	return c
}

func newClass(mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return csitest.NewClass("fast", mode)
}

func on(node string) objects.Local {
	local := csitest.Here
	local.Node = node
	return local
}

func TestDecide(t *testing.T) {
	selected := func(node string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Annotations[annSelectedNode] = node }
	}
	delayedClass := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
	immediate := newClass(storagev1.VolumeBindingImmediate)
	elsewhere := newClass(storagev1.VolumeBindingImmediate)
	elsewhere.AllowedTopologies = []corev1.TopologySelectorTerm{
		{
			MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
				{Key: csitest.Here.TopologyKey, Values: []string{"b"}},
			},
		},
	}

	foreign := newClass(storagev1.VolumeBindingImmediate)
	foreign.Provisioner = "other"
	for _, c := range []struct {
		name  string
		claim *corev1.PersistentVolumeClaim
		class *storagev1.StorageClass
		nodes []string
		want  action
	}{
		{"gone", nil, nil, nil, ignore},
		{"no class object", changed(selected("a")), nil, nil, ignore},
		{"class of another driver", changed(selected("a")), foreign, nil, ignore},
		{"handed to another provisioner", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.Annotations[annProvisioner] = "a", "other"
		}), delayedClass, nil, ignore},
		{
			"bound", changed(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv" }),
			delayedClass, nil, ignore,
		},
		{"being deleted", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.DeletionTimestamp = "a", &metav1.Time{Time: csitest.Born}
		}), delayedClass, nil, ignore},
		{"waits for its consumer", changed(nil), delayedClass, nil, ignore},
		{"selected here", changed(selected("a")), delayedClass, nil, create},
		{"selected elsewhere", changed(selected("b")), delayedClass, []string{"a", "b"}, ignore},
		{"immediate, only node", changed(nil), immediate, []string{"a"}, selectHere},
		{
			"immediate, not handed out",
			changed(func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, annProvisioner) }),
			immediate,
			[]string{"a"},
			ignore,
		},
		{"delayed, not handed out", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{annSelectedNode: "a"}
		}), delayedClass, nil, create},
		{"immediate, taken", changed(selected("a")), immediate, []string{"a"}, create},
		{"immediate, not allowed here", changed(nil), elsewhere, []string{"a", "b"}, ignore},
		{"selected node gone", changed(selected("gone")), delayedClass, []string{"a"}, reschedule},
		{"selector", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.Spec.Selector = "a", &metav1.LabelSelector{}
		}), delayedClass, nil, refuse},
		{"attributes of a class", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.Spec.VolumeAttributesClassName = "a", new("gold")
		}), delayedClass, nil, refuse},
		{"many nodes at once", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}), immediate, []string{"a"}, refuse},
		{"from a snapshot", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode] = "a"
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"}
		}), delayedClass, nil, refuse},
		{"class by the old annotation", changed(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.StorageClassName = nil
			c.Annotations[annBetaClass] = "fast"
			c.Annotations[annSelectedNode] = "a"
		}), delayedClass, nil, create},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(facts{
				local: csitest.Here,
				claim: c.claim,
				class: c.class,
				nodes: c.nodes,
				now:   csitest.Born,
			})
			if got.action != c.want {
				t.Errorf("got %s (%s), want %s", got.action, got.reason, c.want)
			}
		})
	}
}

// At each moment of an Immediate claim's life exactly one node more may take it, in an order that all nodes
// agree upon.
func TestNodesTakeTurns(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var nodes []string
		for i := range 1 + random.IntN(20) {
			nodes = append(nodes, fmt.Sprint("node-", i))
		}

		claim := changed(nil)
		claim.UID = types.UID(fmt.Sprint(random.Uint64()))
		for moment := range len(nodes) {
			takers := 0
			for _, node := range nodes {
				f := facts{
					local: on(node),
					nodes: nodes,
					claim: claim,
					class: newClass(storagev1.VolumeBindingImmediate),
					now:   csitest.Born.Add(time.Duration(moment) * turn),
				}

				switch d := decide(f); d.action {
				case selectHere:
					takers++
				case wait:
					if f.now = f.now.Add(d.after); decide(f).action != selectHere {
						t.Fatalf("%s is to wait %s and may not take the claim then", node, d.after)
					}

				default:
					t.Fatalf("%s decided %s", node, d.action)
				}
			}

			if takers != moment+1 {
				t.Fatalf("%d of %d nodes may take the claim in turn %d", takers, len(nodes), moment)
			}
		}
	}
}

// No claim is created on two nodes, whatever its annotations say.
func TestOneNodeCreates(t *testing.T) {
	nodes := []string{"a", "b", "c"}
	for _, selected := range []string{"", "a", "b", "c", "gone"} {
		for _, mode := range []storagev1.VolumeBindingMode{
			storagev1.VolumeBindingImmediate,
			storagev1.VolumeBindingWaitForFirstConsumer,
		} {
			creators := 0
			for _, node := range nodes {
				claim := changed(func(c *corev1.PersistentVolumeClaim) {
					if selected != "" {
						c.Annotations[annSelectedNode] = selected
					}
				})
				if decide(facts{
					local: on(node),
					nodes: nodes,
					claim: claim,
					class: newClass(mode),
					now:   csitest.Born,
				}).action == create {
					creators++
				}
			}

			if creators > 1 {
				t.Errorf("selected %q, %s: %d nodes create", selected, mode, creators)
			}
		}
	}
}
