package objects

import (
	"maps"
	"reflect"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var here = Local{Driver: "csi.trivet.dev", TopologyKey: "topology.csi.trivet.dev/node", Node: "a"}

func volume(change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:          "pv",
			UID:           "uid",
			Labels:        map[string]string{"app": "x"},
			Annotations:   map[string]string{ProvisionedBy: here.Driver, "other": "y"},
			Finalizers:    []string{"f"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
	}

	pv.Spec.NodeAffinity = here.Affinity()
	pv.Spec.MountOptions = []string{"noatime"}
	pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{
		Driver:           here.Driver,
		VolumeHandle:     "handle",
		VolumeAttributes: map[string]string{"backend": "btrfs"},
	}
	if change != nil {
		change(pv)
	}

	return pv
}

func TestHolds(t *testing.T) {
	expression := func(pv *corev1.PersistentVolume) *corev1.NodeSelectorRequirement {
		return &pv.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	}
	for name, change := range map[string]func(*corev1.PersistentVolume){
		"no CSI":         func(pv *corev1.PersistentVolume) { pv.Spec.CSI = nil },
		"another driver": func(pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "other" },
		"anywhere":       func(pv *corev1.PersistentVolume) { pv.Spec.NodeAffinity = nil },
		"another key":    func(pv *corev1.PersistentVolume) { expression(pv).Key = "zone" },
		"another node":   func(pv *corev1.PersistentVolume) { expression(pv).Values = []string{"b"} },
		"two nodes":      func(pv *corev1.PersistentVolume) { expression(pv).Values = []string{"a", "b"} },
		"all but it": func(pv *corev1.PersistentVolume) {
			expression(pv).Operator = corev1.NodeSelectorOpNotIn
		},
		"here or there": func(pv *corev1.PersistentVolume) {
			there := Local{TopologyKey: here.TopologyKey, Node: "b"}
			pv.Spec.NodeAffinity = Affinity(here.Topology(), there.Topology())
		},
	} {
		if here.Holds(volume(change)) {
			t.Errorf("%s: held", name)
		}
	}

	if !here.Holds(volume(nil)) {
		t.Error("a volume of this node is not held")
	}
}

func TestAllows(t *testing.T) {
	term := func(key string, values ...string) corev1.TopologySelectorTerm {
		return corev1.TopologySelectorTerm{
			MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: key, Values: values}},
		}
	}

	for _, c := range []struct {
		name  string
		terms []corev1.TopologySelectorTerm
		want  bool
	}{
		{"no terms", nil, true},
		{"this node", []corev1.TopologySelectorTerm{term(here.TopologyKey, "b", "a")}, true},
		{"another node", []corev1.TopologySelectorTerm{term(here.TopologyKey, "b")}, false},
		{"one of the terms", []corev1.TopologySelectorTerm{
			term(here.TopologyKey, "b"),
			term(here.TopologyKey, "a"),
		}, true},
		{"terms of others", []corev1.TopologySelectorTerm{term("zone", "z")}, true},
	} {
		if got := here.Allows(&storagev1.StorageClass{AllowedTopologies: c.terms}); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestRuns(t *testing.T) {
	node := &storagev1.CSINode{}
	if here.Runs(nil) || here.Runs(node) {
		t.Error("the driver runs where it is not registered")
	}
	node.Spec.Drivers = []storagev1.CSINodeDriver{{Name: "other"}, {Name: here.Driver}}
	if !here.Runs(node) {
		t.Error("the driver does not run where it is registered")
	}
}

func TestClassInCSI(t *testing.T) {
	class := &storagev1.StorageClass{
		Parameters:   map[string]string{FSType: "xfs", "backend": "image"},
		MountOptions: []string{"noatime"},
	}
	if got := Parameters(class); !maps.Equal(got, map[string]string{"backend": "image"}) {
		t.Errorf("parameters %v", got)
	}

	mount := Capability(class, corev1.ReadWriteOnce, nil)
	if mount.GetMount().GetFsType() != "xfs" ||
		!reflect.DeepEqual(mount.GetMount().GetMountFlags(), class.MountOptions) ||
		mount.GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER {
		t.Errorf("capability %v", mount)
	}

	block := Capability(class, corev1.ReadWriteOncePod, new(corev1.PersistentVolumeBlock))
	if block.GetBlock() == nil ||
		block.GetAccessMode().GetMode() != csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		t.Errorf("capability %v", block)
	}
}

// Slimming is done once or twice, and what decisions rest on stays.
func TestVolumesAreKeptSlim(t *testing.T) {
	s := slimVolumes{
		local:       here,
		annotations: map[string]string{ProvisionedBy: here.Driver},
		affinity:    here.Affinity(),
	}

	own := volume(nil)
	other := volume(func(pv *corev1.PersistentVolume) { pv.Spec.NodeAffinity = nil })
	foreign := volume(func(pv *corev1.PersistentVolume) { pv.Spec.CSI.Driver = "other" })
	byHand := volume(func(pv *corev1.PersistentVolume) { pv.Annotations = map[string]string{"x": "y"} })
	for range 2 {
		for _, pv := range []*corev1.PersistentVolume{own, other, foreign, byHand} {
			s.slim(pv)
			if pv.Name != "pv" || pv.UID != "uid" || pv.Labels != nil || pv.ManagedFields != nil ||
				pv.Spec.MountOptions != nil {
				t.Errorf("kept %+v", pv)
			}
		}

		if !here.Holds(own) || own.Annotations[ProvisionedBy] != here.Driver || len(own.Finalizers) != 1 ||
			own.Spec.CSI.VolumeHandle != "handle" || own.Spec.CSI.VolumeAttributes != nil {
			t.Errorf("of this node: %+v", own)
		}

		if here.Holds(other) || other.Spec.CSI.VolumeHandle != "handle" || other.Finalizers != nil {
			t.Errorf("of another node: %+v", other)
		}
		if foreign.Spec.CSI != nil || len(handleOf(foreign)) > 0 {
			t.Errorf("of another driver: %+v", foreign)
		}
		if byHand.Annotations != nil || !here.Holds(byHand) {
			t.Errorf("made by hand: %+v", byHand)
		}
	}
}

func TestClaimsAreKeptSlim(t *testing.T) {
	quantity := func(size string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	}
	for _, c := range []struct {
		name                string
		volume              string
		phase               corev1.PersistentVolumeClaimPhase
		requested, capacity string
		step                corev1.ClaimResourceStatus
		keepsSpec, keepSize bool
	}{
		{"without a volume", "", corev1.ClaimPending, "1Gi", "0", "", true, true},
		{"bound", "pv", corev1.ClaimBound, "1Gi", "1Gi", "", false, false},
		{"grows", "pv", corev1.ClaimBound, "2Gi", "1Gi", "", false, true},
		{
			"gave a growth up", "pv", corev1.ClaimBound, "1Gi", "1Gi", "ControllerResizeInfeasible", false,
			true,
		},
		{"not yet bound", "pv", corev1.ClaimPending, "1Gi", "0", "", false, false},
	} {
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
			Name:        "claim",
			Annotations: map[string]string{"selected-node": "a"},
			Labels:      map[string]string{"app": "x"},
		}}

		claim.Spec.VolumeName = c.volume
		claim.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
		claim.Spec.Resources.Requests = quantity(c.requested)
		claim.Status.Phase = c.phase
		claim.Status.Capacity = quantity(c.capacity)
		if c.step != "" {
			claim.Status.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{
				corev1.ResourceStorage: c.step,
			}
		}

		asks := AsksForMore(claim)
		for range 2 {
			slimClaim(claim)
			if claim.Labels != nil || claim.Spec.VolumeName != c.volume ||
				(claim.Spec.AccessModes != nil) != c.keepsSpec || (claim.Annotations != nil) != c.keepsSpec {
				t.Errorf("%s: kept %+v", c.name, claim)
			}

			requested := Requested(claim)
			if !requested.IsZero() != c.keepSize || c.keepSize && AsksForMore(claim) != asks ||
				Growth(claim) != c.step {
				t.Errorf("%s: growth kept %+v", c.name, claim)
			}
		}
	}
}

func TestClaimsThatAskForAttributesKeepWhatThatNeeds(t *testing.T) {
	for _, c := range []struct {
		name            string
		wanted, current *string
		status          *corev1.ModifyVolumeStatus
		keeps           bool
	}{
		{"no class", nil, nil, nil, false},
		{"its class", new("gold"), new("gold"), nil, false},
		{"another class", new("gold"), new("iron"), nil, true},
		{"no class any more", nil, nil, &corev1.ModifyVolumeStatus{Status: "Infeasible"}, true},
	} {
		claim := &corev1.PersistentVolumeClaim{
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv", VolumeAttributesClassName: c.wanted},
			Status: corev1.PersistentVolumeClaimStatus{
				Phase:                            corev1.ClaimBound,
				CurrentVolumeAttributesClassName: c.current,
				ModifyVolumeStatus:               c.status,
			},
		}

		for range 2 {
			slimClaim(claim)
			if AsksForAttributes(claim) != c.keeps || (claim.Status.Phase != "") != c.keeps {
				t.Errorf("%s: kept %+v", c.name, claim)
			}
		}
	}
}
