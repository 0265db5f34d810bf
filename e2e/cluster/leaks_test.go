package cluster

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
	if diff := cmp.Diff(want, parseUnitStates(shown)); diff != "" {
		t.Error(diff)
	}
}
