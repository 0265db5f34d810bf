package btrfspool

import (
	"errors"
	"testing"

	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/target"
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

// An image that was made where there were loop devices is one where there are none, too.
func TestImageWithoutLoopDevicesIsUnavailable(t *testing.T) {
	p := &Pool{images: &images{}}
	s := volume.Spec{Access: volume.Filesystem, FSType: "ext4"}
	_, mounted := p.images.mount(s, target.Options{})
	_, used := p.Usage(s, nil)
	_, made := p.create(nil, s)
	for what, err := range map[string]error{"mounted": mounted, "usage": used, "made again": made} {
		if !errors.Is(err, volume.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
