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
)

const (
	testDriver = "csi.trivet.dev"
	testKey    = "topology.csi.trivet.dev/node"
)

var born = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newClaim(change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:         "ns",
			Name:              "data",
			UID:               "uid-1",
			CreationTimestamp: metav1.NewTime(born),
			Annotations:       map[string]string{annProvisioner: testDriver},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: new("fast"),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		},
	}
	if change != nil {
		change(c)
	}

	return c
}

func newClass(mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: "fast"},
		Provisioner:       testDriver,
		VolumeBindingMode: &mode,
	}
}

func TestDecide(t *testing.T) {
	selected := func(node string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Annotations[annSelectedNode] = node }
	}
	delayedClass, immediate := newClass(storagev1.VolumeBindingWaitForFirstConsumer), newClass(storagev1.VolumeBindingImmediate)
	elsewhere := newClass(storagev1.VolumeBindingImmediate)
	elsewhere.AllowedTopologies = []corev1.TopologySelectorTerm{
		{
			MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
				{Key: testKey, Values: []string{"b"}},
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
		{"no class object", newClaim(selected("a")), nil, nil, ignore},
		{"class of another driver", newClaim(selected("a")), foreign, nil, ignore},
		{"handed to another provisioner", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.Annotations[annProvisioner] = "a", "other"
		}), delayedClass, nil, ignore},
		{
			"bound", newClaim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv" }),
			delayedClass, nil, bound,
		},
		{"being deleted", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.DeletionTimestamp = "a", &metav1.Time{Time: born}
		}), delayedClass, nil, ignore},
		{"waits for its consumer", newClaim(nil), delayedClass, nil, ignore},
		{"selected here", newClaim(selected("a")), delayedClass, nil, create},
		{"selected elsewhere", newClaim(selected("b")), delayedClass, []string{"a", "b"}, ignore},
		{"immediate, only node", newClaim(nil), immediate, []string{"a"}, take},
		{
			"immediate, not handed out",
			newClaim(func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, annProvisioner) }),
			immediate,
			[]string{"a"},
			ignore,
		},
		{"delayed, not handed out", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{annSelectedNode: "a"}
		}), delayedClass, nil, create},
		{"immediate, taken", newClaim(selected("a")), immediate, []string{"a"}, create},
		{"immediate, not allowed here", newClaim(nil), elsewhere, []string{"a", "b"}, ignore},
		{"selected node gone", newClaim(selected("gone")), delayedClass, []string{"a"}, free},
		{"selector", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.Spec.Selector = "a", &metav1.LabelSelector{}
		}), delayedClass, nil, refuse},
		{"attributes of a class", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode], c.Spec.VolumeAttributesClassName = "a", new("gold")
		}), delayedClass, nil, refuse},
		{"many nodes at once", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}), immediate, []string{"a"}, refuse},
		{"from a snapshot", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annSelectedNode] = "a"
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "VolumeSnapshot", Name: "s"}
		}), delayedClass, nil, refuse},
		{"class by the old annotation", newClaim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.StorageClassName, c.Annotations[annBetaClass], c.Annotations[annSelectedNode] = nil, "fast", "a"
		}), delayedClass, nil, create},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(facts{
				driver:      testDriver,
				topologyKey: testKey,
				node:        "a",
				claim:       c.claim,
				class:       c.class,
				nodes:       c.nodes,
				now:         born,
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

		claim := newClaim(func(c *corev1.PersistentVolumeClaim) { c.UID = types.UID(fmt.Sprint(random.Uint64())) })
		for moment := range len(nodes) {
			takers := 0
			for _, node := range nodes {
				f := facts{
					driver:      testDriver,
					topologyKey: testKey,
					node:        node,
					nodes:       nodes,
					claim:       claim,
					class:       newClass(storagev1.VolumeBindingImmediate),
					now:         born.Add(time.Duration(moment) * turn),
				}

				switch d := decide(f); d.action {
				case take:
					takers++
				case wait:
					if f.now = f.now.Add(d.after); decide(f).action != take {
						t.Fatalf("%s was told to wait %s and may not take the claim then", node, d.after)
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
				claim := newClaim(func(c *corev1.PersistentVolumeClaim) {
					if selected != "" {
						c.Annotations[annSelectedNode] = selected
					}
				})
				if decide(facts{
					driver:      testDriver,
					topologyKey: testKey,
					node:        node,
					nodes:       nodes,
					claim:       claim,
					class:       newClass(mode),
					now:         born,
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

func TestDispose(t *testing.T) {
	pv := func(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
		v := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{
				Annotations: map[string]string{annProvisionedBy: testDriver},
				Finalizers:  []string{finalizer},
			},
		}

		v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: testDriver}
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: testKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"a"}},
			}}}}}

		v.Status.Phase = corev1.VolumeReleased
		change(v)
		return v
	}

	for _, c := range []struct {
		name   string
		change func(*corev1.PersistentVolume)
		want   disposal
	}{
		{"released", func(*corev1.PersistentVolume) {}, destroy},
		{"bound", func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound }, keep},
		{"bound and being deleted", func(v *corev1.PersistentVolume) {
			v.Status.Phase, v.DeletionTimestamp = corev1.VolumeBound, &metav1.Time{Time: born}
		}, keep},
		{"retained", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		}, keep},
		{"retained and bound by an earlier version", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy, v.Finalizers = corev1.PersistentVolumeReclaimRetain, nil
			v.Status.Phase = corev1.VolumeBound
		}, mark},
		{"retained and being deleted", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
			v.DeletionTimestamp = &metav1.Time{Time: born}
		}, letGo},
		{"retained, bound and being deleted", func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
			v.Status.Phase, v.DeletionTimestamp = corev1.VolumeBound, &metav1.Time{Time: born}
		}, keep},
		{"without finalizer and being deleted", func(v *corev1.PersistentVolume) {
			v.Finalizers, v.DeletionTimestamp = nil, &metav1.Time{Time: born}
		}, keep},
		{"on another node", func(v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0] = "b"
		}, keep},
		{"anywhere", func(v *corev1.PersistentVolume) { v.Spec.NodeAffinity = nil }, keep},
		{"made by hand", func(v *corev1.PersistentVolume) { v.Annotations = nil }, keep},
		{"of another driver", func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = "other" }, keep},
		{"no CSI", func(v *corev1.PersistentVolume) { v.Spec.CSI = nil }, keep},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := dispose(pv(c.change), testDriver, testKey, "a"); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
