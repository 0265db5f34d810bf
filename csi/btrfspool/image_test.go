package btrfspool

import (
	"errors"
	"testing"

	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/volume"
)

// Who writes over a part of an image has a device, which has no answer but EIO when there is no room.
func TestImageIsOverwrittenInPlace(t *testing.T) {
	x := &images{files: &image.Images{}}
	for _, s := range []volume.Spec{
		{Access: volume.Block},
		{Access: volume.Filesystem, FSType: "ext4"},
	} {
		if err := x.complete(&s, nil); !errors.Is(err, volume.ErrInvalid) {
			t.Errorf("%s access without nocow: %v", s.Access, err)
		}
	}

	s := volume.Spec{Access: volume.Block, NoCOW: true}
	if err := x.complete(&s, nil); err != nil || !s.Pooled {
		t.Errorf("%+v, %v", s, err)
	}
}
