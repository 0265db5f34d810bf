package volume

import (
	"errors"
	"fmt"

	"github.com/trivet-node/trivet/node/reason"
)

// Reasons of events, as kubelet's.
const (
	reasonMount = "FailedMount"
	reasonMap   = "FailedMapVolume"

	// ResizeFailed is the reason of a volume that is there, but not as large as it should be.
	ResizeFailed = "VolumeResizeFailed"
)

// Failed returns the error of a volume that cannot be used, in kubelet's words, which users and tests search
// for. why is kubelet's event reason: FailedMount, FailedAttachVolume, FailedMapVolume or ResizeFailed.
func Failed(volume, why string, err error) *reason.Error {
	switch why {
	case reasonMount:
		err = fmt.Errorf("MountVolume.SetUp failed for volume %q : %w", volume, err)
	case ResizeFailed:
		err = fmt.Errorf("NodeExpandVolume failed for volume %q : %w", volume, err)
	default:
		err = fmt.Errorf("volume %q : %w", volume, err)
	}
	return &reason.Error{Reason: why, Err: err}
}

// failed returns err as the error of the volume, with the reason FailedMount if it has none. It returns nil
// for nil.
func failed(volume string, err error) *reason.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*reason.Error](err); ok {
		return e
	}
	return Failed(volume, reasonMount, err)
}
