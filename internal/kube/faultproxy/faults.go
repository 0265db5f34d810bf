package faultproxy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// Faults say how often what goes wrong: each is a probability from 0 to 1, drawn for each request, each watch
// or each event. The zero value is a proxy that does nothing wrong.
type Faults struct {
	// Of events: lost, held back (with all that follow), sent twice, sent after up to three later ones.
	Lose    float64
	Delay   float64
	Double  float64
	Reorder float64

	// Of events: the stream ends in the middle of it, an ERROR event comes in its place and ends the stream,
	// or it does not come and nothing after it, while the stream stays open.
	Cut     float64
	Error   float64
	Silence float64

	// LoseBookmark is of bookmarks: lost. EarlyBookmark is of events, before which a bookmark of their
	// version comes, and of watches, where the one that ends the initial events comes before these.
	LoseBookmark  float64
	EarlyBookmark float64

	// Of watches: refused because their version has expired (410).
	Expire float64

	// Of lists, those that begin a watch included: an earlier answer is given again.
	OldList float64

	// Of requests: refused (429 with Retry-After of one second, 500), answered slowly, or never.
	TooMany  float64
	Internal float64
	Slow     float64
	Hang     float64

	// Of writes: the server has done it, and its answer is lost.
	LoseAnswer float64

	// Pause is the longest time for which events are held back, and how long a slow answer takes.
	Pause time.Duration
}

// All returns faults of all kinds, each of which is rare enough to let some work through.
func All(pause time.Duration) Faults {
	const rare, usual = 0.03, 0.1
	return Faults{
		Lose:          usual,
		Delay:         usual,
		Double:        usual,
		Reorder:       usual,
		Cut:           rare,
		Error:         rare,
		Silence:       rare,
		LoseBookmark:  0.5,
		EarlyBookmark: rare,
		Expire:        usual,
		OldList:       usual,
		TooMany:       rare,
		Internal:      usual,
		Slow:          usual,
		Hang:          rare,
		LoseAnswer:    usual,
		Pause:         pause,
	}
}

// Of returns the faults for a seed: all kinds, or a few that come often, so that none of them makes the
// client find out what another one has done. lasting says that they are not to end: each kind is drawn both
// ways.
func Of(seed uint64, pause time.Duration) (f Faults, lasting bool) {
	kinds := []Faults{
		All(pause),
		{Lose: 0.3},
		{Double: 0.2, Reorder: 0.3, Cut: 0.02},
		{OldList: 0.3, Error: 0.05, Expire: 0.2},
		{EarlyBookmark: 0.3, Lose: 0.1, Error: 0.1},
		{Silence: 0.05, Delay: 0.1, Hang: 0.05, Pause: pause},
	}
	n := uint64(len(kinds))
	return kinds[seed%n], seed/n%2 == 1
}

// dice are the random numbers of one request.
type dice struct{ *rand.Rand }

// roll reports whether something of this probability happens.
func (d dice) roll(probability float64) bool { return probability > 0 && d.Float64() < probability }

// pause is a part of the longest pause.
func (d dice) pause(longest time.Duration) time.Duration {
	return time.Duration(d.Float64() * float64(longest))
}

// Tally counts what went wrong, by fault.
type Tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *Tally) add(fault string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[fault]++
}

// Of returns how often a fault was: "lose", "early bookmark".
func (t *Tally) Of(fault string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[fault]
}

// String lists the faults by name: "cut 3, lose 12".
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()

	var out []string
	for _, fault := range slices.Sorted(maps.Keys(t.counts)) {
		out = append(out, fmt.Sprintf("%s %d", fault, t.counts[fault]))
	}
	return strings.Join(out, ", ")
}
