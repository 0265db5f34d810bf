package refusal_test

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/csi/refusal"
)

func TestWhatWasRefusedIsNotAskedForUntilThePauseIsOver(t *testing.T) {
	var r refusal.Refusals[string]
	now := time.Now()
	if left := r.Of("claim").Left("gold", now); left != 0 {
		t.Errorf("before any refusal it has to wait for %v", left)
	}

	r.Add("claim", "gold", now, time.Minute)
	for _, c := range []struct {
		uid, what string
		at        time.Duration
		want      time.Duration
	}{
		{"claim", "gold", 0, time.Minute},
		{"claim", "gold", 59 * time.Second, time.Second},
		{"claim", "gold", time.Minute, 0},
		{"claim", "gold", time.Hour, 0},
		{"claim", "iron", 0, 0},
		{"other", "gold", 0, 0},
	} {
		if left := r.Of(types.UID(c.uid)).Left(c.what, now.Add(c.at)); left != c.want {
			t.Errorf("%s waits %v for %s after %v, want %v", c.uid, left, c.what, c.at, c.want)
		}
	}
}

func TestRefusalsThatAreOverAreForgotten(t *testing.T) {
	var r refusal.Refusals[int64]
	now := time.Now()
	r.Add("first", 1, now, time.Second)
	r.Add("second", 2, now, time.Minute)
	r.Add("third", 3, now.Add(time.Second), time.Minute)

	if got := r.Of("first"); got != (refusal.Refusal[int64]{}) {
		t.Errorf("the one that is over is still there: %v", got)
	}
	if got := r.Of("second"); got.What != 2 {
		t.Errorf("the one that goes on is %v", got)
	}

	r.Add("second", 4, now, time.Minute)
	if got := r.Of("second"); got.What != 4 {
		t.Errorf("the later refusal of an object is not its last one: %v", got)
	}
}
