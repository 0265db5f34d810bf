package btrfspool

import (
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// The limit of a volume that is about to be destroyed is nobody's to lower: its quota group would be made
// again. There is no pool here that could be asked.
func TestLimitOfAForgottenVolumeIsLeftAlone(t *testing.T) {
	h := newShares(nil)
	h.know(volume.Spec{ID: "v", Size: 1 << 20})
	h.copies.Suspect("v")
	h.forget("v")
	if excess, err := h.lower(nil, "v"); excess != 0 || err != nil {
		t.Errorf("lowered, with an excess of %d, %v", excess, err)
	}
	if h.copies.IsStale("v") {
		t.Error("it will be looked at again")
	}
}
