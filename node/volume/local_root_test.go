package volume

import (
	"context"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

// grown keeps the size that a claim was said to have.
type grown struct{ size resource.Quantity }

func (g *grown) Growing(
	_ context.Context,
	claim *v1.PersistentVolumeClaim,
) (*v1.PersistentVolumeClaim, error) {
	return claim, nil
}

func (g *grown) NotGrown(
	_ context.Context,
	_ *v1.PersistentVolumeClaim,
	_ resource.Quantity,
	cause error,
) error {
	return cause
}

func (g *grown) Grown(_ context.Context, _ *v1.PersistentVolumeClaim, size resource.Quantity) error {
	g.size = size
	return nil
}

// An administrator has made the disk larger, and says so in the PersistentVolume.
func TestAClaimGrowsWithItsLocalVolume(t *testing.T) {
	testenv.Root(t)
	c, pod, vol := boundClaim()
	c.pv.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{
		Local: &v1.LocalVolumeSource{Path: t.TempDir()},
	}
	c.pv.Spec.Capacity = v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Gi")}
	c.claim.Status.Capacity = v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}

	sizes := &grown{}
	root := t.TempDir()
	t.Cleanup(func() {
		if err := mount.UnmountBelow(root); err != nil {
			t.Error(err)
		}
	})
	m := New(Config{Root: root, Objects: c, Claims: sizes})

	mounted, err := m.claim(t.Context(), pod, vol, "data", false)
	if err != nil {
		t.Fatal(err)
	}
	if !mounted.revisit {
		t.Error("a volume that may be made larger is not looked at again")
	}
	if sizes.size.String() != "2Gi" {
		t.Errorf("the claim has %s, want 2Gi", sizes.size.String())
	}
}
