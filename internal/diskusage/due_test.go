package diskusage

import (
	"testing"
	"time"
)

func TestTreeIsCountedAgainWhenItMayHaveChanged(t *testing.T) {
	exact := func(bytes, inodes int64) space { return space{bytes: bytes, inodes: inodes, exact: true} }
	last := signs{activity: 100, space: exact(1<<30, 1000)}
	seen := func(activity int64, s space) signs { return signs{activity: activity, space: s} }
	cases := map[string]struct {
		now  signs
		cost time.Duration

		// age is the least age at which it is counted, 0 for never.
		age time.Duration
	}{
		"nothing happened":                 {seen(100, exact(1<<30, 1000)), 0, 0},
		"others wrote":                     {seen(100, exact(1<<30+4096, 1001)), 0, 0},
		"others wrote a lot":               {seen(100, exact(1<<30+otherBytes, 1000)), 0, doubtAge},
		"others deleted many files":        {seen(100, exact(1<<30, 1000+otherInodes)), 0, doubtAge},
		"its writers ran":                  {seen(101, exact(1<<30, 1000)), 0, doubtAge},
		"they ran, the disk is fuller":     {seen(101, exact(1<<30+4096, 1000)), 0, minAge},
		"they ran, the disk is emptier":    {seen(101, exact(1<<30-4096, 1000)), 0, minAge},
		"they ran, there is one more file": {seen(101, exact(1<<30, 1001)), 0, minAge},
		"its writers have ended":           {seen(Ended, exact(1<<30+4096, 1000)), 0, minAge},
		"its writers are not known":        {seen(Unknown, exact(1<<30+4096, 1000)), 0, minAge},
		"another file system than ext4":    {seen(101, space{bytes: 1 << 30, inodes: 1000}), 0, minAge},
		"a count takes a second":           {seen(101, exact(1<<30, 1001)), time.Second, 20 * time.Second},
		"a count takes a minute":           {seen(101, exact(1<<30, 1001)), time.Minute, maxPause},
		"large, and others wrote a lot":    {seen(100, exact(2<<30, 1000)), 3 * time.Second, 2 * doubtAge},
	}

	for name, c := range cases {
		d := c.now.since(last)
		if c.age == 0 {
			if d.due(24*time.Hour, c.cost) {
				t.Errorf("%s: it is counted", name)
			}

			continue
		}

		if d.due(c.age-1, c.cost) || !d.due(c.age, c.cost) {
			t.Errorf("%s: it is not counted from an age of %s on", name, c.age)
		}
	}
}

func TestTreeOfAProjectIsCountedOnlyForWhatWasTakenOut(t *testing.T) {
	of := func(activity, bytes int64) since {
		last := signs{project: project{known: true}}
		now := signs{
			activity: activity,
			space:    space{bytes: bytes, exact: true},
			project:  project{known: true},
		}

		return now.since(last)
	}

	if d := of(1, 4096); d.due(maxPause-1, 0) || !d.due(maxPause, time.Hour) {
		t.Error("it is not counted as often as kubelet does")
	}
	if d := of(0, 4096); d.due(24*time.Hour, 0) {
		t.Error("it is counted though nobody has run")
	}
}

func TestWhatIsOutsideOfTheProjectIsKnownFromTheCount(t *testing.T) {
	for name, c := range map[string]struct{ counted, began, ended, want uint64 }{
		"all is in the project":          {100, 100, 100, 0},
		"some was taken out":             {500, 100, 100, 400},
		"it grew while it was counted":   {130, 100, 200, 0},
		"it shrank while it was counted": {130, 200, 100, 0},
		"there is more in the project":   {80, 100, 100, 0},
	} {
		of := func(n uint64) Usage { return Usage{Bytes: n, Inodes: n} }
		if got := outsideOf(of(c.counted), of(c.began), of(c.ended)); got != of(c.want) {
			t.Errorf("%s: %+v, want %d", name, got, c.want)
		}
	}
}
