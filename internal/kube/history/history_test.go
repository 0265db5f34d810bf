package history

import (
	"testing"
	"time"
)

func TestEventsAreInTheOrderOfTheirVersions(t *testing.T) {
	var h History
	for i, event := range []struct {
		version string
		inOrder bool
	}{
		{"9", true},
		{"10", true},
		{"10", true},
		{"9", false},
		{"11", true},
		{"what is this", true},
		{"12", true},
	} {
		if got := h.Advance(event.version); got != event.inOrder {
			t.Errorf("event %d, version %s: in order %t", i, event.version, got)
		}
	}
}

// list has a list judged, and describes the verdict.
func (h *History) list(version, missing string, now time.Time) string {
	restored, err := h.Judge(version, missing, now)
	switch {
	case err != nil:
		return "refused"
	case restored:
		return "restored"
	}
	return "taken"
}

func TestListsAreJudged(t *testing.T) {
	var h History
	start := time.Unix(1000, 0)
	for i, list := range []struct {
		version, missing string
		whole            bool
		after            time.Duration
		want             string
	}{
		{"100", "", false, 0, "taken"},

		// What is missing counts if the list came in one piece.
		{"110", "a", false, 0, "refused"},
		{"110", "a", true, 0, "taken"},
		{"110", "b", false, 0, "refused"},

		// A server lags behind for a while, and once more.
		{"90", "", true, 0, "refused"},
		{"95", "a", true, 50 * time.Second, "refused"},
		{"110", "", false, 55 * time.Second, "taken"},
		{"95", "", true, 70 * time.Second, "refused"},

		// Two of before that are far from each other say nothing.
		{"95", "", true, 900 * time.Second, "refused"},
		{"110", "", false, 901 * time.Second, "taken"},

		// It was restored, and goes on from there.
		{"95", "", true, 1000 * time.Second, "refused"},
		{"95", "", true, 1010 * time.Second, "refused"},
		{"95", "", true, 1020 * time.Second, "refused"},
		{"95", "", true, 1059 * time.Second, "refused"},
		{"95", "a", false, 1060 * time.Second, "restored"},
		{"96", "", false, 1060 * time.Second, "taken"},
	} {
		if list.whole {
			h.Whole(list.version)
		}
		if got := h.list(list.version, list.missing, start.Add(list.after)); got != list.want {
			t.Errorf("list %d of version %s is %s, want %s", i, list.version, got, list.want)
		}
	}
}

func TestTooFewEarlierVersionsAreNotBelieved(t *testing.T) {
	var lag Lag
	start := time.Unix(1000, 0)
	for i, at := range []time.Duration{0, 61 * time.Second, 150 * time.Second} {
		if !lag.Behind(true, start.Add(at)) || !lag.IsBehind() {
			t.Errorf("version %d, after %s, counts", i, at)
		}
	}
	if lag.Behind(true, start.Add(160*time.Second)) || lag.IsBehind() {
		t.Error("the fourth in three minutes does not count")
	}
}
