package nodestatus

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestTheNodeOfARestoredServerCountsAfterAMinute(t *testing.T) {
	var own ownNode
	saw := func(uid types.UID, version string, after time.Duration) string {
		n := &v1.Node{ObjectMeta: metav1.ObjectMeta{UID: uid, ResourceVersion: version}}
		own.sawAt(n, time.Unix(1000, 0).Add(after))
		return own.get().ResourceVersion
	}

	for i, step := range []struct {
		uid     types.UID
		version string
		after   time.Duration
		want    string
	}{
		{"a", "100", 0, "100"},
		{"a", "90", time.Second, "100"},
		{"a", "110", 2 * time.Second, "110"},
		{"a", "90", 3 * time.Second, "110"},
		{"a", "91", 30 * time.Second, "110"},
		{"a", "91", time.Minute, "110"},
		{"a", "92", 64 * time.Second, "92"},

		// One that was made again is another Node.
		{"b", "80", 65 * time.Second, "80"},
	} {
		if got := saw(step.uid, step.version, step.after); got != step.want {
			t.Errorf("step %d: version %s, want %s", i, got, step.want)
		}
	}
}

func TestTheStatusIsSentAsLongAsTheServerGivesEarlierVersions(t *testing.T) {
	own := ownNode{changed: make(chan struct{}, 1)}
	sawAt := func(version string, at time.Time) {
		own.sawAt(&v1.Node{ObjectMeta: metav1.ObjectMeta{UID: "a", ResourceVersion: version}}, at)
	}

	sawAt("100", time.Now())
	if own.isDoubted() {
		t.Error("the first version is doubted")
	}

	long := func() { sawAt("90", time.Now().Add(-settling)) }
	for _, earlier := range []func(){long, own.doubt} {
		earlier()
		select {
		case <-own.changed:
		default:
			t.Error("the node is not looked at")
		}
		if !own.isDoubted() || own.pause(time.Hour) != doubtedCheck {
			t.Error("an earlier version is not doubted")
		}
		sawAt("100", time.Now())
		if own.isDoubted() || own.pause(time.Hour) != time.Hour {
			t.Error("the known version is doubted")
		}
	}
}

// TestAVersionThatWasOnItsWayIsNotDoubted has the watch show what was before an answer, as it does when
// reports follow each other closely: nothing is sent for it unless it stays the last word.
func TestAVersionThatWasOnItsWayIsNotDoubted(t *testing.T) {
	own := ownNode{changed: make(chan struct{}, 1)}
	for _, version := range []string{"100", "90"} {
		own.saw(&v1.Node{ObjectMeta: metav1.ObjectMeta{UID: "a", ResourceVersion: version}})
	}

	if own.isDoubted() {
		t.Error("it is doubted at once")
	}
	if pause := own.pause(time.Hour); pause <= 0 || pause > settling {
		t.Errorf("the next look is after %v", pause)
	}
}
