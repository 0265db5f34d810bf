package diskusage

import (
	"testing"
	"time"
)

func TestTreeIsCountedAgainWhenItMayHaveChanged(t *testing.T) {
	exact := func(bytes, inodes int64) space { return space{bytes: bytes, inodes: inodes, exact: true} }
	last := signs{activity: 100, space: exact(1<<30, 1000)}
	cases := map[string]struct {
		now  signs
		cost time.Duration

		// age is the least age at which it is counted, 0 for never.
		age time.Duration
	}{
		"nothing happened":                 {signs{100, exact(1<<30, 1000)}, 0, 0},
		"others wrote":                     {signs{100, exact(1<<30+4096, 1001)}, 0, 0},
		"others wrote a lot":               {signs{100, exact(1<<30+otherBytes, 1000)}, 0, doubtAge},
		"others deleted many files":        {signs{100, exact(1<<30, 1000+otherInodes)}, 0, doubtAge},
		"its writers ran":                  {signs{101, exact(1<<30, 1000)}, 0, doubtAge},
		"they ran, the disk is fuller":     {signs{101, exact(1<<30+4096, 1000)}, 0, minAge},
		"they ran, the disk is emptier":    {signs{101, exact(1<<30-4096, 1000)}, 0, minAge},
		"they ran, there is one more file": {signs{101, exact(1<<30, 1001)}, 0, minAge},
		"its writers have ended":           {signs{Ended, exact(1<<30+4096, 1000)}, 0, minAge},
		"its writers are not known":        {signs{Unknown, exact(1<<30+4096, 1000)}, 0, minAge},
		"another file system than ext4":    {signs{101, space{bytes: 1 << 30, inodes: 1000}}, 0, minAge},
		"a count takes a second":           {signs{101, exact(1<<30, 1001)}, time.Second, 20 * time.Second},
		"a count takes a minute":           {signs{101, exact(1<<30, 1001)}, time.Minute, maxPause},
		"large, and others wrote a lot":    {signs{100, exact(2<<30, 1000)}, 3 * time.Second, 2 * doubtAge},
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
