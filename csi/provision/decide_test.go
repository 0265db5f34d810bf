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

// A claim for another node is looked at if it begins with a content, which may be here.
func TestDecideWhetherTheContentOfAClaimMayBeHere(t *testing.T) {
	allowed := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
	elsewhere := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
	elsewhere.AllowedTopologies = []corev1.TopologySelectorTerm{{
		MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: csitest.Here.TopologyKey, Values: []string{"b"}},
		},
	}}

	for _, c := range []struct {
		name  string
		claim *corev1.PersistentVolumeClaim
		class *storagev1.StorageClass
		want  action
	}{
		{"a claim", from("", "PersistentVolumeClaim", "source"), allowed, bringHere},
		{"a populator's", from("example.org", "Backup", "source"), allowed, ignore},
		{"class does not allow this node", from("", "PersistentVolumeClaim", "source"), elsewhere, ignore},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.claim.Annotations[annSelectedNode] = "b"
			checkAction(t, facts{claim: c.claim, class: c.class, nodes: []string{"a", "b"}}, c.want)
		})
	}
}

func TestDecideWhetherTheClaimIsForThisNode(t *testing.T) {
	waits := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
	immediate := newClass(storagev1.VolumeBindingImmediate)
	foreign := newClass(storagev1.VolumeBindingImmediate)
	foreign.Provisioner = "other"
	elsewhere := newClass(storagev1.VolumeBindingImmediate)
	elsewhere.AllowedTopologies = []corev1.TopologySelectorTerm{{
		MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: csitest.Here.TopologyKey, Values: []string{"b"}},
		},
	}}

	one, two := []string{"a"}, []string{"a", "b"}
	for _, c := range []struct {
		name     string
		selected string
		class    *storagev1.StorageClass
		nodes    []string
		want     action
	}{
		{"no class object", "a", nil, nil, ignore},
		{"class of another driver", "a", foreign, nil, ignore},
		{"waits for its consumer", "", waits, nil, ignore},
		{"selected here", "a", waits, nil, create},
		{"selected elsewhere", "b", waits, two, ignore},
		{"selected node gone", "gone", waits, one, reschedule},
		{"immediate, only node", "", immediate, one, selectHere},
		{"immediate, taken", "a", immediate, one, create},
		{"immediate, not allowed here", "", elsewhere, two, ignore},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := changed(nil)
			if c.selected != "" {
				claim.Annotations[annSelectedNode] = c.selected
			}

			checkAction(t, facts{claim: claim, class: c.class, nodes: c.nodes}, c.want)
		})
	}

	t.Run("gone", func(t *testing.T) { checkAction(t, facts{}, ignore) })
}

func checkAction(t *testing.T, f facts, want action) {
	t.Helper()
	f.local, f.now = csitest.Here, csitest.Born
	if got := decide(f); got.action != want {
		t.Errorf("got %s (%s), want %s", got.action, got.reason, want)
	}
}

func TestDecideWhatIsDueForAClaimOfThisNode(t *testing.T) {
	cases := []struct {
		name   string
		change func(*corev1.PersistentVolumeClaim)
		want   action
	}{
		{"nothing more", func(*corev1.PersistentVolumeClaim) {}, create},
		{"bound", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "pv" }, ignore},
		{"being deleted", func(c *corev1.PersistentVolumeClaim) {
			c.DeletionTimestamp = &metav1.Time{Time: csitest.Born}
		}, ignore},
		{"handed to another provisioner", func(c *corev1.PersistentVolumeClaim) {
			c.Annotations[annProvisioner] = "other"
		}, ignore},
		{"not handed out yet", func(c *corev1.PersistentVolumeClaim) {
			delete(c.Annotations, annProvisioner)
		}, create},
		{"class by the old annotation", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.StorageClassName = nil
			c.Annotations[annBetaClass] = "fast"
		}, create},
		{"no class", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = nil }, ignore},
		{"selector", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{}
		}, refuse},
		{"attributes of a class", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.VolumeAttributesClassName = new("gold")
		}, create},
		{"many who read what nobody writes", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
		}, refuse},
		{"many who read, and one who writes", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{
				corev1.ReadOnlyMany, corev1.ReadWriteOnce,
			}
		}, create},
		{"many who read a device", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{
				corev1.ReadWriteOnce, corev1.ReadOnlyMany,
			}
			c.Spec.VolumeMode = new(corev1.PersistentVolumeBlock)
		}, refuse},
		{"many nodes at once", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, refuse},
	}

	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			claim := changed(c.change)
			claim.Annotations[annSelectedNode] = csitest.Node
			class := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
			checkAction(t, facts{claim: claim, class: class}, c.want)
		})
	}
}

func TestDecideAboutAClaimWithASource(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*corev1.PersistentVolumeClaim)
		want   action
	}{
		{"from a snapshot", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{
				APIGroup: new("snapshot.storage.k8s.io"),
				Kind:     "VolumeSnapshot",
				Name:     "s",
			}
		}, create},
		{"from a claim", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "s"}
		}, create},
		{"many who read a copy", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "PersistentVolumeClaim", Name: "s"}
		}, create},
		{"from another namespace", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{
				Kind:      "PersistentVolumeClaim",
				Name:      "s",
				Namespace: new("other"),
			}
		}, refuse},
		{"to be filled by a populator", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSourceRef = &corev1.TypedObjectReference{
				APIGroup: new("example.org"),
				Kind:     "Backup",
				Name:     "s",
			}
		}, ignore},
	} {
		t.Run(c.name, func(t *testing.T) {
			claim := changed(c.change)
			claim.Annotations[annSelectedNode] = csitest.Node

			class := newClass(storagev1.VolumeBindingWaitForFirstConsumer)
			checkAction(t, facts{claim: claim, class: class}, c.want)
		})
	}
}

// All nodes see a claim without a node. What is wrong with it is said by one of them.
func TestDecideAboutAnImmediateClaimWithoutANode(t *testing.T) {
	class, nodes := newClass(storagev1.VolumeBindingImmediate), []string{"a", "b", "c"}
	unservable := changed(func(c *corev1.PersistentVolumeClaim) { c.Spec.Selector = &metav1.LabelSelector{} })
	speakers := 0
	for _, node := range nodes {
		f := facts{
			local: on(node),
			claim: unservable,
			class: class,
			nodes: nodes,
			now:   csitest.Born,
		}
		if decide(f).action == refuse {
			speakers++
		}
	}

	if speakers != 1 {
		t.Errorf("%d of %d nodes speak", speakers, len(nodes))
	}

	// The controller-manager writes to it first, and a node that was full a moment ago waits.
	fresh := changed(func(c *corev1.PersistentVolumeClaim) { delete(c.Annotations, annProvisioner) })
	checkAction(t, facts{claim: fresh, class: class, nodes: []string{"a"}}, ignore)
	full := csitest.Born.Add(time.Second)
	checkAction(t, facts{
		claim: changed(nil),
		class: class,
		nodes: []string{"a"},
		full:  full,
	}, wait)
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
