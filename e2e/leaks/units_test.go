package leaks

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLeftUnitsAreNamedWithTheirStates(t *testing.T) {
	const shown = `Result=timeout
Id=trivet-1.scope
ActiveState=failed
SubState=failed

Id=kubepods-pod1.slice
ActiveState=inactive
SubState=dead
`

	want := map[string]string{
		"trivet-1.scope":      "failed, failed, timeout",
		"kubepods-pod1.slice": "inactive, dead",
	}
	if diff := cmp.Diff(want, ParseUnitStates(shown)); diff != "" {
		t.Error(diff)
	}
}

func TestDevicesOnFilesOfVolumesThatAreGoneAreLeft(t *testing.T) {
	devices := map[string]string{
		"/dev/loop0": "/keep/var/lib/trivet/csi/images/live.img",
		"/dev/loop1": "/keep/var/lib/trivet/csi/images/gone.img",
		"/dev/loop2": "/keep/var/lib/trivet/csi/pool.img",
		"/dev/loop3": "/keep/var/lib/trivet/csi/other",
	}

	left := staleLoops(devices, []string{"live"})
	if len(left) != 1 || left[0].What != "/dev/loop1 on /keep/var/lib/trivet/csi/images/gone.img" {
		t.Errorf("left %v", left)
	}

	twice := map[string]string{"/dev/loop0": "/x/pool.img", "/dev/loop1": "/x/pool.img"}
	if left := staleLoops(twice, nil); len(left) != 1 {
		t.Errorf("two devices on one file: left %v, want one of them", left)
	}
}
