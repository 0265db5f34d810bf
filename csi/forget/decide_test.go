package forget

import (
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

	for _, c := range []struct {
		name    string
		since   string // of the annotation; "": there is none
		exists  bool
		watched time.Duration
		after   time.Duration
		want    fate
	}{
		{"there", "", true, time.Hour, time.Hour, keep},
		{"there again", "2026-11-30T11:00:00Z", true, 0, time.Hour, unmark},
		{"gone", "", false, time.Hour, time.Hour, mark},
		{"gone for a moment", "2026-11-30T11:59:00Z", false, time.Hour, time.Hour, keep},
		{"gone for long enough", "2026-11-30T11:00:00Z", false, time.Hour, time.Hour, drop},
		{"gone, as was seen long ago", "2026-10-30T12:00:00Z", false, time.Hour - 1, 24 * time.Hour, keep},
		{"gone for an hour, too", "2026-10-30T12:00:00Z", false, time.Hour, 24 * time.Hour, drop},
		{"gone for a minute, too", "2026-10-30T12:00:00Z", false, time.Minute, time.Minute, drop},
		{"the mark is nonsense", "yesterday", false, time.Hour, time.Hour, mark},
		{"the mark is of the future", "2026-11-30T12:00:01Z", false, time.Hour, time.Hour, mark},
	} {
		annotations := map[string]string{}
		if c.since != "" {
			annotations[MissingSince] = c.since
		}

		if got := decide(annotations, c.exists, now, c.watched, c.after); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
