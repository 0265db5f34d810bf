package volume

import "testing"

// A driver that is killed before its first volume of a backend is there goes on when it starts again.
func TestAVolumeThatWasBeingMadeIsNotOneThatIsThere(t *testing.T) {
	for phase, want := range map[phase]bool{making: false, ready: true, deleting: true} {
		r := Records{all: map[string]record{"v": {Phase: phase, Spec: Spec{ID: "v", Backend: "quota"}}}}
		if !r.Has("quota") || r.Has("other") {
			t.Errorf("%s: the record is not found, or one of another backend is", phase)
		}
		if got := r.HasMade("quota"); got != want {
			t.Errorf("%s: made %v, want %v", phase, got, want)
		}
	}
}
