package quotadir

import (
	"maps"
	"slices"
	"testing"
)

func TestNamesSayVolumeAndProject(t *testing.T) {
	for name, want := range map[string]bool{
		nameOf("pvc-1", firstNumber):   true,
		nameOf("pvc-1", endNumber-1):   true,
		nameOf("pvc-1", endNumber):     false,
		nameOf("pvc-1", firstNumber-1): false,
		"pvc-1":                        false,
		"pvc-1.":                       false,
		"pvc-1.0536870912":             false,
		"pvc-1.+536870912":             false,
		"pvc-1.536870912.1":            false,
		"pvc-1.99999999999999999999":   false,
		"../x.536870912":               false,
		".536870912":                   false,
		"lost+found":                   false,
	} {
		id, project, ok := Parse(name)
		if ok != want || ok && (id != "pvc-1" || nameOf(id, project) != name) {
			t.Errorf("%q: %q, %d, %v", name, id, project, ok)
		}
	}
}

func TestNumbersOfAdministratorsAreRead(t *testing.T) {
	got := map[uint32]bool{}
	numbersIn("# comment\n10:/home/a\n\n 11 : /home/b\nnone\n99999999999:/x\n:\n", 0, got)
	numbersIn("alice:12\nbob:13:\nnobody\n", 1, got)
	if all := slices.Sorted(maps.Keys(got)); !slices.Equal(all, []uint32{10, 11, 12, 13}) {
		t.Errorf("%v", all)
	}
}

// Two data directories on one disk begin elsewhere, and each of them always at the same number.
func TestNumbersBeginWhereTheDataDirectorySays(t *testing.T) {
	a, again, b := newNumbers("a"), newNumbers("a"), newNumbers("b")
	if a.lowest != again.lowest || a.lowest == b.lowest {
		t.Errorf("%d, %d and %d", a.lowest, again.lowest, b.lowest)
	}
	for _, n := range []*numbers{a, b} {
		if n.lowest < firstNumber || n.lowest >= endNumber {
			t.Errorf("%d is not between %d and %d", n.lowest, firstNumber, endNumber)
		}
	}
}

func TestNumberIsTakenUntilNothingIsLeftOfItsVolume(t *testing.T) {
	n := newNumbers("a")
	first := n.lowest
	n.found("pvc-1", first, true)
	n.found("pvc-1", first+1, true)
	n.found("pvc-2", first+2, false)
	if project, known := n.of("pvc-1"); !known || project != first {
		t.Errorf("of two directories %d is used", project)
	}
	if ids := n.ids(); !slices.Equal(ids, []string{"pvc-1"}) {
		t.Errorf("volumes %v", ids)
	}

	n.leave("pvc-1")
	if _, known := n.of("pvc-1"); known || n.taken[first] != 1 || n.taken[first+2] != 1 {
		t.Errorf("taken: %v", n.taken)
	}
	n.lowest = first + 3
	n.free(first + 2)
	if n.taken[first+2] > 0 || n.lowest != first+2 {
		t.Errorf("taken %v, the lowest may be %d", n.taken, n.lowest)
	}
}

func TestNumberOfTwoDirectoriesIsShared(t *testing.T) {
	n := newNumbers("a")
	n.found("pvc-1", n.lowest, true)
	n.found("pvc-2", n.lowest, true)
	n.found("pvc-3", n.lowest+1, true)
	if !n.isShared(n.lowest) || n.isShared(n.lowest+1) {
		t.Errorf("%v", n.taken)
	}
	n.leaveShared(n.lowest)
	if n.isShared(n.lowest) || n.taken[n.lowest] != 1 {
		t.Errorf("with one of them gone: %v", n.taken)
	}
}
