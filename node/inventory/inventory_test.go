package inventory_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/inventory"
)

func TestVolumesAreMountedUntilTheirPodIsDropped(t *testing.T) {
	var i inventory.Inventory
	for _, step := range []struct {
		name    string
		mounted bool
		want    int
	}{{"a", true, 1}, {"a", false, 1}, {"b", false, 1}, {"b", true, 2}} {
		i.Enter("u", step.name, "p", step.mounted)
		if got := i.Mounted()["p"]; got != step.want {
			t.Errorf("after %q: %d volumes, want %d", step.name, got, step.want)
		}
	}

	i.Drop("other")
	i.Drop("u")
	if left := i.Mounted(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// claimed is a volume with a claim.
var claimed = &v1.Volume{Name: "data", VolumeSource: v1.VolumeSource{
	PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "c"},
}}

func TestTheDriverOfAClaimIsKnownWhenTheClaimIs(t *testing.T) {
	var i inventory.Inventory
	if got := i.PluginOf("u", claimed); got != "kubernetes.io/csi" {
		t.Errorf("before: %s", got)
	}

	i.Enter("u", "data", "kubernetes.io/csi:d", false)
	if got := i.PluginOf("u", claimed); got != "kubernetes.io/csi:d" {
		t.Errorf("after: %s", got)
	}
}

func TestPersistentVolumesAreNamedByTheirSource(t *testing.T) {
	want := map[string]v1.PersistentVolumeSource{
		"kubernetes.io/csi:d":        {CSI: &v1.CSIPersistentVolumeSource{Driver: "d"}},
		"kubernetes.io/local-volume": {Local: &v1.LocalVolumeSource{}},
		"kubernetes.io/host-path":    {HostPath: &v1.HostPathVolumeSource{}},
		"kubernetes.io/nfs":          {NFS: &v1.NFSVolumeSource{}},
		"N/A":                        {},
	}
	for name, source := range want {
		pv := &v1.PersistentVolume{Spec: v1.PersistentVolumeSpec{PersistentVolumeSource: source}}
		if diff := cmp.Diff(name, inventory.Plugin(claimed, pv)); diff != "" {
			t.Error(diff)
		}
	}
}
