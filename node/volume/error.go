package volume

import (
	"errors"
	"fmt"
)

// Reasons of events, as kubelet's.
const (
	reasonMount = "FailedMount"
	reasonMap   = "FailedMapVolume"

	// ResizeFailed is the reason of a volume that is there, but not as large as it should be.
	ResizeFailed = "VolumeResizeFailed"
)

// Error is a volume that cannot be mounted.
type Error struct {
	Volume string
	// Reason is kubelet's event reason: FailedMount, FailedAttachVolume, FailedMapVolume or ResizeFailed.
	Reason string
	Err    error
}

// Error says what failed in kubelet's words, which users and tests search for.
func (e *Error) Error() string {
	switch e.Reason {
	case reasonMount:
		return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
	case ResizeFailed:
		return fmt.Sprintf("NodeExpandVolume failed for volume %q : %v", e.Volume, e.Err)
	}
	return fmt.Sprintf("volume %q : %v", e.Volume, e.Err)
}

// Unwrap returns what went wrong.
func (e *Error) Unwrap() error { return e.Err }

// asError returns err as the *Error of the volume, nil for nil.
func asError(volume string, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{
		Volume: volume,
		Reason: reasonMount,
		Err:    err,
	}
}
