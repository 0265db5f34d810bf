package inuse

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
)

// start is a set that reports volumes of the driver "a" alone, and counts hints.
func start(t *testing.T) (v *Volumes, hints *int) {
	t.Helper()
	v, hints = &Volumes{}, new(int)
	v.Follow(func() { *hints++ })
	v.Begin(func(driver string) (is, known bool) { return driver == "a", true }, true)
	return v, hints
}

func wantNames(t *testing.T, v *Volumes, want ...v1.UniqueVolumeName) {
	t.Helper()
	names, known := v.Names(nil)
	if diff := cmp.Diff(want, names); diff != "" || !known {
		t.Errorf("known %v, names %s", known, diff)
	}
}

func TestAVolumeIsInUseUntilItsLastHolderLetsItGo(t *testing.T) {
	v, hints := start(t)
	v.Hold("a", "2", "pod")
	v.Hold("a", "1", "pod")
	v.Hold("a", "1", "staging")
	v.Hold("detached", "1", "pod")
	wantNames(t, v, "kubernetes.io/csi/a^1", "kubernetes.io/csi/a^2")

	v.Release("pod")
	wantNames(t, v, "kubernetes.io/csi/a^1")
	v.Release("staging")
	v.Release("staging")
	wantNames(t, v)
	if *hints != 7 {
		t.Errorf("%d hints, want one at the start and two of each volume", *hints)
	}
}

func TestAVolumeCountsAsReportedWhenTheAPIHasShownItSinceItCame(t *testing.T) {
	v, _ := start(t)
	v.Hold("a", "1", "pod")
	if v.IsReported("a", "1") {
		t.Error("reported at once")
	}

	names, _ := v.Names(nil)
	v.Hold("a", "2", "pod")
	v.Reported(names)
	if !v.IsReported("a", "1") || v.IsReported("a", "2") {
		t.Error("want the one reported that was sent, and not the one that came meanwhile")
	}

	v.Release("pod")
	v.Hold("a", "1", "another pod")
	if v.IsReported("a", "1") {
		t.Error("one that came again counts as reported")
	}
}

func TestNothingIsReportedBeforeItIsKnownWhatThereIs(t *testing.T) {
	v := &Volumes{}
	v.Hold("a", "1", "pod")
	if _, known := v.Names(nil); known {
		t.Error("known before what was there has been entered")
	}

	listed := false
	v.Begin(func(string) (is, known bool) { return true, listed }, true)
	if _, known := v.Names(nil); known {
		t.Error("known without the list of drivers")
	}

	listed = true
	wantNames(t, v, "kubernetes.io/csi/a^1")
}

func TestWhatTheNodeShowsStaysWhenNotAllCouldBeRead(t *testing.T) {
	v := &Volumes{}
	v.Hold("a", "known", "pod")
	v.Hold("a", "gone", "early")
	v.Begin(func(string) (is, known bool) { return true, true }, false)
	v.Release("early")

	wantShown := func(shown []v1.UniqueVolumeName, want ...v1.UniqueVolumeName) {
		t.Helper()
		names, known := v.Names(shown)
		if diff := cmp.Diff(want, names); diff != "" || !known {
			t.Errorf("known %v, names %s", known, diff)
		}
	}

	gone, known, unread := Name("a", "gone"), Name("a", "known"), Name("a", "unread")
	wantShown([]v1.UniqueVolumeName{gone, known, unread}, known, unread)
	v.Release("pod")
	wantShown([]v1.UniqueVolumeName{known, unread}, unread)

	// A pod has it, and it is unstaged when that goes.
	v.Hold("a", "unread", "pod")
	wantShown(nil, unread)
	v.Release("pod")
	wantShown([]v1.UniqueVolumeName{unread})
}
